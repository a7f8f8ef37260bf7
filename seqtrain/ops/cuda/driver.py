"""The part of CUDA's driver interface that launches need, by ctypes: no CUDA toolkit, no headers, no link."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from functools import cache
from typing import Any

from seqtrain.errors import CudaError

__all__ = ["Driver", "find_driver"]

_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8  # CUfunction_attribute
# CUdevice_attribute
_MULTIPROCESSOR_COUNT, _MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, _CLUSTER_LAUNCH = 16, 97, 120
_CLUSTER_DIMENSION = 4  # CUlaunchAttributeID
_WITHOUT_ASKING = 48 << 10


class LaunchAttribute(ctypes.Structure):
    """CUlaunchAttribute with the value that says how many blocks a cluster has."""

    _fields_ = (
        ("id", ctypes.c_int), ("padding", ctypes.c_char * 4), ("cluster", ctypes.c_uint * 3),
        ("rest", ctypes.c_char * 52),
    )  # fmt: skip


class LaunchConfig(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p), ("attributes", ctypes.POINTER(LaunchAttribute)), ("count", ctypes.c_uint),
    )  # fmt: skip


class Driver:
    """libcuda; `library` is what ctypes loaded."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._contexts: dict[int, ctypes.c_void_p] = {}
        self._call("cuInit", ctypes.c_uint(0))

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code == 0:
            return
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(ctypes.c_int(code), ctypes.byref(text))
        said = text.value.decode("utf-8", "replace") if text.value else "unknown error"
        raise CudaError(f"{name} failed: {said} (CUDA's error {code})", call=name, code=code)

    @contextlib.contextmanager
    def context(self, device: int) -> Iterator[None]:
        """The context that torch uses on the device, current on this thread, whatever thread it is."""
        if device not in self._contexts:
            handle, context = ctypes.c_int(), ctypes.c_void_p()
            self._call("cuDeviceGet", ctypes.byref(handle), ctypes.c_int(device))
            self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
            self._contexts[device] = context
        self._call("cuCtxPushCurrent_v2", self._contexts[device])
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def _attribute(self, device: int, attribute: int) -> int:
        handle, value = ctypes.c_int(), ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(handle), ctypes.c_int(device))
        self._call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(attribute), handle)
        return value.value

    def largest_shared(self, device: int) -> int:
        """Bytes of shared memory that one block may ask for."""
        return self._attribute(device, _MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)

    def processors(self, device: int) -> int:
        """Each runs a block, at least."""
        return self._attribute(device, _MULTIPROCESSOR_COUNT)

    def has_clusters(self, device: int) -> bool:
        """Whether driver and device launch clusters; drivers from before there were any aren't asked."""
        return hasattr(self._library, "cuLaunchKernelEx") and self._attribute(device, _CLUSTER_LAUNCH) != 0

    def load(self, image: bytes) -> ctypes.c_void_p:
        """A module of the current context."""
        module = ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(image))
        return module

    def function(self, module: ctypes.c_void_p, name: str, shared_bytes: int) -> ctypes.c_void_p:
        """A kernel that may use up to `shared_bytes` of dynamic shared memory."""
        function = ctypes.c_void_p()
        self._call("cuModuleGetFunction", ctypes.byref(function), module, ctypes.c_char_p(name.encode()))
        if shared_bytes > _WITHOUT_ASKING:
            self._call(
                "cuFuncSetAttribute",
                function,
                ctypes.c_int(_MAX_DYNAMIC_SHARED_SIZE_BYTES),
                ctypes.c_int(shared_bytes),
            )
        return function

    def launch(
        self,
        function: ctypes.c_void_p,
        blocks: int,
        threads: int,
        shared_bytes: int,
        stream: int,
        problem: ctypes.Structure,
        cluster: int = 1,
    ) -> None:
        """Puts one launch into the stream, of clusters of blocks. The driver copies `problem` before this returns."""
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(problem))
        if cluster > 1:
            together = LaunchAttribute(id=_CLUSTER_DIMENSION, cluster=(cluster, 1, 1))
            config = LaunchConfig(
                (blocks, 1, 1), (threads, 1, 1), shared_bytes, stream, ctypes.pointer(together), 1
            )
            self._call("cuLaunchKernelEx", ctypes.byref(config), function, parameters, ctypes.c_void_p())
            return
        one = ctypes.c_uint(1)
        self._call(
            "cuLaunchKernel",
            function,
            ctypes.c_uint(blocks), one, one,
            ctypes.c_uint(threads), one, one,
            ctypes.c_uint(shared_bytes),
            ctypes.c_void_p(stream),
            parameters,
            ctypes.c_void_p(),
        )  # fmt: skip


@cache
def find_driver() -> Driver:
    """The system's driver. Raises CudaError that says what to install."""
    for name in ("libcuda.so.1", "libcuda.so"):
        with contextlib.suppress(OSError):
            return Driver(ctypes.CDLL(name))
    raise CudaError(
        "CUDA's driver (libcuda.so.1) is not on this machine: install the NVIDIA driver, or pass tensors on the CPU",
        call="dlopen",
    )
