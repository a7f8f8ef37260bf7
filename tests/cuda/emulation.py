"""The CUDA kernels on the host: csrc/emulation compiled by g++, behind a stand-in for CUDA's driver library.

The stand-in takes the calls that seqtrain.ops.cuda.driver makes of libcuda, so that everything above it is the code
that runs on a device; "device memory" is host memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from seqtrain.ops.cuda import register
from seqtrain.ops.cuda.driver import Driver, LaunchConfig
from seqtrain.ops.cuda.runtime import Runtime

ORDERS = ("ascending", "descending", "shuffled")
_ROOT = Path(__file__).parents[2]
_FLAGS = (
    "-std=c++20", "-O2", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion",
    "-Wno-sign-conversion", "-Wshadow", "-Wno-unknown-pragmas", "-Wno-clobbered", "-Werror", "-pthread",
)  # fmt: skip
_FAULTS = {
    0: "", 1: "no such kernel", 2: "threads are no multiple of a warp",
    3: "a barrier that some threads never reach", 4: "written past the end of shared memory",
    5: "shared memory of a block that hasn't begun, or has ended", 6: "blocks that don't make up clusters",
}  # fmt: skip


def flags() -> tuple[str, ...]:
    """Of the compiler; with the processor's own fused multiply-add, which the library only emulates."""
    processor = Path("/proc/cpuinfo")
    fast = platform.machine() == "x86_64" and processor.exists() and " fma " in processor.read_text()
    return (*_FLAGS, *(("-march=x86-64-v3",) if fast else ()))


@functools.cache
def library(plant: str = "") -> ctypes.CDLL:
    """Built once for each state of the sources; `plant="barrier"` leaves a barrier out."""
    sources = sorted(
        p for folder in ("cuda", "emulation", "recursion", "cpu") for p in (_ROOT / "csrc" / folder).iterdir()
    )
    command = ["g++", *flags(), "-fPIC", "-shared"]
    if plant:
        command.append(f"-DSEQTRAIN_PLANT_{plant.upper()}")
    digest = hashlib.sha256("\0".join(command).encode())
    for path in sources:
        digest.update(path.read_bytes())
    built = _ROOT / "build" / "emulation" / f"kernels-{digest.hexdigest()[:16]}.so"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        partial = built.with_suffix(f".{os.getpid()}")
        files = [str(_ROOT / "csrc" / "emulation" / name) for name in ("host.cpp", "kernels.cpp")]
        subprocess.run([*command, *files, "-o", str(partial)], check=True)
        partial.replace(built)
    return ctypes.CDLL(str(built))


class EmulatedCuda:
    """What libcuda answers, as far as `Driver` asks."""

    def __init__(
        self,
        order: str = "ascending",
        *,
        plant: str = "",
        largest_shared: int = 99 << 10,
        processors: int = 16,
    ) -> None:
        self.order, self.seed, self.largest_shared = order, 1, largest_shared
        self.attributes = {16: processors, 97: largest_shared, 120: 1}
        self.emulate = library(plant).seqtrain_emulate
        self.names: dict[int, bytes] = {}
        self.allowed: dict[int, int] = {}
        self.images: list[bytes] = []
        self.launched: list[tuple[bytes, int, int, int]] = []
        self.clusters: list[int] = []

    def cuInit(self, flags: Any) -> int:  # noqa: N802  # the driver's names
        return 0

    def cuDeviceGet(self, device: Any, ordinal: Any) -> int:  # noqa: N802
        device._obj.value = ordinal.value
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:  # noqa: N802
        context._obj.value = 1
        return 0

    def cuCtxPushCurrent_v2(self, context: Any) -> int:  # noqa: N802
        return 0

    def cuCtxPopCurrent_v2(self, context: Any) -> int:  # noqa: N802
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: Any, device: Any) -> int:  # noqa: N802
        value._obj.value = self.attributes[attribute.value]
        return 0

    def cuModuleLoadData(self, module: Any, image: Any) -> int:  # noqa: N802
        self.images.append(image.value)
        module._obj.value = 1
        return 0

    def cuModuleGetFunction(self, function: Any, module: Any, name: Any) -> int:  # noqa: N802
        function._obj.value = len(self.names) + 1
        self.names[function._obj.value] = name.value
        return 0

    def cuFuncSetAttribute(self, function: Any, attribute: Any, value: Any) -> int:  # noqa: N802
        self.allowed[function.value] = value.value
        return 0

    def cuGetErrorString(self, code: Any, text: Any) -> int:  # noqa: N802
        text._obj.value = b"emulated: " + _FAULTS.get(code.value, "?").encode()
        return 0

    def cuLaunchKernel(self, function: Any, *rest: Any) -> int:  # noqa: N802
        blocks, _, _, threads, _, _, shared, _, parameters, _ = rest
        return self._launch(function, blocks.value, threads.value, shared.value, parameters, 1)

    def cuLaunchKernelEx(self, config: Any, function: Any, parameters: Any, extra: Any) -> int:  # noqa: N802
        given: LaunchConfig = config._obj
        assert given.count == 1
        together = given.attributes[0]
        assert together.id == 4  # of a cluster's size
        return self._launch(
            function, given.grid[0], given.block[0], given.shared_bytes, parameters, together.cluster[0]
        )

    def _launch(
        self, function: Any, blocks: int, threads: int, shared: int, parameters: Any, cluster: int
    ) -> int:
        if shared > self.allowed.get(function.value, 48 << 10):
            return 1
        name = self.names[function.value]
        self.launched.append((name, blocks, threads, shared))
        self.clusters.append(cluster)
        code: int = self.emulate(
            ctypes.c_char_p(name), ctypes.c_int64(blocks), ctypes.c_int64(cluster), ctypes.c_int(threads),
            ctypes.c_int64(shared), ctypes.c_void_p(parameters[0]), ctypes.c_int(ORDERS.index(self.order)),
            ctypes.c_uint32(self.seed),
        )  # fmt: skip
        return code


def emulated_runtime(cuda: EmulatedCuda) -> Runtime:
    """A runtime whose device is the host."""
    return Runtime(Driver(cuda), torch.device("cpu"), lambda: b"image", lambda: 0, architecture=90)


@contextlib.contextmanager
def on_emulated_cuda(
    order: str = "ascending",
    *,
    plant: str | None = None,
    largest_shared: int = 99 << 10,
    processors: int = 16,
) -> Iterator[EmulatedCuda]:
    """Within, the operators run the CUDA kernels for CPU tensors. The environment may plant a fault in all."""
    plant = os.environ.get("SEQTRAIN_EMULATION_PLANT", "") if plant is None else plant
    cuda = EmulatedCuda(order, plant=plant, largest_shared=largest_shared, processors=processors)
    on = emulated_runtime(cuda)
    overriding = _Overriding("seqtrain")
    try:
        register(overriding, "CPU", lambda device: on)
        yield cuda
    finally:
        overriding.end()


class _Overriding:
    """Replaces implementations without the warning that torch has for those who do it by mistake.

    By the dispatcher below torch.library, which before torch 2.0 would refuse to.
    """

    def __init__(self, namespace: str) -> None:
        self._library: Any = torch.library.Library(namespace, "IMPL")

    def impl(self, name: str, function: Any, key: str) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
            self._library.m.impl(name, key, function)

    def end(self) -> None:
        """The implementations from before are back."""
        if hasattr(self._library.m, "reset"):
            self._library.m.reset()
        self._library.m = None  # older torch forgets them with the last reference
