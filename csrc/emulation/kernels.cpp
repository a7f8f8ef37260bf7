// The CUDA kernels, compiled for the host.
#include "../cuda/kernels.cu"
