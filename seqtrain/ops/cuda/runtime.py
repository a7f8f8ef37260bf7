"""Kernels of one device: compiled when first used, launched on torch's current stream."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache

import torch

from seqtrain.capture import is_capturing, refused
from seqtrain.ops.cuda.cache import cache_directory, compiled
from seqtrain.ops.cuda.cluster import LARGEST_CLUSTER
from seqtrain.ops.cuda.compiler import find_compiler
from seqtrain.ops.cuda.driver import Driver, find_driver
from seqtrain.ops.cuda.source import problem_names, problem_type, source

__all__ = ["LARGEST_BLOCK", "REDUCTION_BYTES", "Runtime", "runtime", "threads_for"]

REDUCTION_BYTES = 32 * 8
"""What every kernel needs of shared memory beside its own (csrc/cuda/arithmetic.h)."""
LARGEST_BLOCK = 512
"""Threads of the largest block: with every kernel's registers they fit into those of any processor."""
_LARGEST_GRID = 2**31 - 1
_FIRST_WITH_CLUSTERS = 90


def threads_for(items: int, most: int) -> int:
    """Threads of a block that goes over `items`: whole warps, no more than there is work for."""
    return max(32, min(most, LARGEST_BLOCK, (items + 31) // 32 * 32))


Argument = torch.Tensor | int | float | bool | None


class Runtime:
    """Launches kernels on `device`. `image` makes the code to load, `stream` tells where to launch.

    `architecture` is what the code is compiled for: 90 for compute capability 9.0, the first that has clusters.
    """

    def __init__(
        self,
        driver: Driver,
        device: torch.device,
        image: Callable[[], bytes],
        stream: Callable[[], int],
        architecture: int = 0,
    ) -> None:
        self.device = device
        self._driver, self._image, self._stream = driver, image, stream
        self._index = device.index or 0
        self._lock = threading.Lock()
        self._module: ctypes.c_void_p | None = None
        self._functions: dict[str, ctypes.c_void_p] = {}
        self.largest_shared = driver.largest_shared(self._index)
        self.processors = driver.processors(self._index)
        has_clusters = architecture >= _FIRST_WITH_CLUSTERS and driver.has_clusters(self._index)
        self.largest_cluster = LARGEST_CLUSTER if has_clusters else 1
        self.launches = 0

    def _function(self, name: str) -> ctypes.c_void_p:
        with self._lock:
            if name not in self._functions and is_capturing(self.device):
                raise refused(
                    f"{name} has not run on {self.device} yet, and code can't be loaded while a CUDA graph is "
                    "captured: make one call, forward and backward, before the capture"
                )
            if self._module is None:
                self._module = self._driver.load(self._image())
            if name not in self._functions:
                self._functions[name] = self._driver.function(self._module, name, self.largest_shared)
            return self._functions[name]

    def load(self, name: str) -> None:
        """Makes the kernel ready for a capture."""
        if name not in self._functions:
            with self._driver.context(self._index):
                self._function(name)

    def fits(self, shared_bytes: int) -> bool:
        """Whether a block may have so much shared memory beside that for reductions."""
        return REDUCTION_BYTES + shared_bytes <= self.largest_shared

    def workspace(self, blocks: int, bytes_of_block: int) -> torch.Tensor | None:
        """Global memory for blocks whose state doesn't fit into shared memory; None where it does."""
        if self.fits(bytes_of_block):
            return None
        return torch.empty(blocks * bytes_of_block, dtype=torch.uint8, device=self.device)

    def launch(
        self,
        kernel: str,
        problem: str,
        blocks: int,
        threads: int,
        shared_bytes: int = 0,
        cluster: int = 1,
        /,
        **arguments: Argument,
    ) -> None:
        """Launches `kernel` with the structure `problem`, whose fields are `arguments`, all of them by name.

        Tensors must live until the stream is done with them: torch's allocator sees to that for tensors that were
        allocated on the stream. `shared_bytes` come on top of what reductions need. Of the blocks, `cluster` run
        together each time.
        """
        names = problem_names(problem)
        if len(names) != len(arguments) or not all(map(arguments.__contains__, names)):
            missing = set(names) - arguments.keys()
            raise TypeError(f"{problem}: missing {missing}, unknown {arguments.keys() - set(names)}")
        values: list[int | float] = []
        device = self.device
        for name in names:
            value = arguments[name]
            if value is None:
                values.append(0)
            elif isinstance(value, torch.Tensor):
                if value.device != device:
                    raise TypeError(f"{problem}.{name} is on {value.device}, the kernel on {device}")
                values.append(value.data_ptr())
            else:
                values.append(value)
        if blocks == 0:
            return
        with self._driver.context(self._index):
            self._driver.launch(
                self._function(kernel), min(blocks, _LARGEST_GRID), threads, REDUCTION_BYTES + shared_bytes,
                self._stream(), problem_type(problem)(*values), cluster,
            )  # fmt: skip
        self.launches += 1


@cache
def runtime(device: torch.device) -> Runtime:
    """That of a CUDA device. Raises CudaError or MissingDependencyError where driver or compiler are missing."""
    major, minor = torch.cuda.get_device_capability(device)

    def image() -> bytes:
        return compiled(find_compiler(), source(), 10 * major + minor, cache_directory())

    def stream() -> int:
        handle: int = torch.cuda.current_stream(device).cuda_stream
        return handle

    # On a device that is newer than the compiler, the code knows no more than the compiler did.
    target = find_compiler().target(10 * major + minor)
    return Runtime(find_driver(), device, image, stream, architecture=int(target.split("_")[1]))
