"""What is asked of CUDA's driver, and what is said when it refuses."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch

from seqtrain.errors import CudaError
from seqtrain.ops.cuda import driver
from seqtrain.ops.cuda.driver import Driver, find_driver
from seqtrain.ops.cuda.runtime import REDUCTION_BYTES, Runtime
from seqtrain.ops.cuda.source import problem_fields
from tests.cuda.emulation import EmulatedCuda


class RecordingCuda(EmulatedCuda):
    """Keeps what is launched instead of running it; `refuses` is a call that fails with 700."""

    def __init__(self, refuses: str = "") -> None:
        super().__init__()
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.problem = b""
        self.refuses = refuses

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cu") and name == object.__getattribute__(self, "refuses"):
            return lambda *_: 700
        return object.__getattribute__(self, name)

    def cuGetErrorString(self, code: Any, text: Any) -> int:  # noqa: N802
        text._obj.value = b"an illegal memory access was encountered"
        return 0

    def cuLaunchKernelEx(self, config: Any, function: Any, parameters: Any, extra: Any) -> int:  # noqa: N802
        self.calls.append((self.names[function.value].decode(), (config._obj,)))
        return 0

    def cuLaunchKernel(self, function: Any, *rest: Any) -> int:  # noqa: N802
        size = 8 * len(problem_fields("CtcProblem"))
        self.problem = ctypes.string_at(rest[8][0], size)
        self.calls.append((self.names[function.value].decode(), rest))
        return 0


def a_runtime(cuda: EmulatedCuda) -> Runtime:
    return Runtime(Driver(cuda), torch.device("cpu"), lambda: b"machine code", lambda: 77)


def arguments(**given: Any) -> dict[str, Any]:
    return {**dict.fromkeys((name for name, _ in problem_fields("CtcProblem")), 0), **given}


def test_a_launch_packs_fields_in_the_order_of_the_source() -> None:
    cuda = RecordingCuda()
    lengths = torch.tensor([3, 4])
    a_runtime(cuda).launch(
        "ctc_sweep_float32", "CtcProblem", 6, 64, 100, **arguments(batch=2, lengths=lengths, phase=-5, offsets=None)
    )  # fmt: skip
    words = list((ctypes.c_int64 * (len(cuda.problem) // 8)).from_buffer_copy(cuda.problem))
    names = [name for name, _ in problem_fields("CtcProblem")]
    assert words[names.index("batch")] == 2
    assert words[names.index("lengths")] == lengths.data_ptr()
    assert words[names.index("offsets")] == 0
    assert words[names.index("phase")] == -5
    name, rest = cuda.calls[0]
    assert name == "ctc_sweep_float32"
    grid_and_block = [value.value for value in rest[:6]]
    assert grid_and_block == [6, 1, 1, 64, 1, 1]
    assert (rest[6].value, rest[7].value) == (REDUCTION_BYTES + 100, 77)


def test_a_launch_of_clusters() -> None:
    cuda = RecordingCuda()
    a_runtime(cuda).launch("values", "CtcProblem", 12, 64, 100, 4, **arguments())
    ((_, (config,)),) = cuda.calls
    assert (list(config.grid), list(config.block)) == ([12, 1, 1], [64, 1, 1])
    assert (config.shared_bytes, config.stream, config.count) == (REDUCTION_BYTES + 100, 77, 1)
    assert (config.attributes[0].id, list(config.attributes[0].cluster)) == (4, [4, 1, 1])
    # What cuda.h makes of them on a machine with pointers of 64 bits.
    assert [ctypes.sizeof(driver.LaunchConfig), ctypes.sizeof(driver.LaunchAttribute)] == [56, 72]
    assert driver.LaunchConfig.attributes.offset == 40
    assert driver.LaunchAttribute.cluster.offset == 8


def test_clusters_need_a_device_a_driver_and_code_that_know_them() -> None:
    def largest(cuda: EmulatedCuda, architecture: int) -> int:
        on = Runtime(Driver(cuda), torch.device("cpu"), lambda: b"", lambda: 0, architecture)
        return on.largest_cluster

    class Older(EmulatedCuda):
        def __getattribute__(self, name: str) -> Any:
            if name == "cuLaunchKernelEx":
                raise AttributeError(name)
            return super().__getattribute__(name)

    assert [largest(EmulatedCuda(), a) for a in (0, 89, 90, 120)] == [1, 1, 8, 8]
    assert largest(Older(), 90) == 1
    without = EmulatedCuda()
    without.attributes[120] = 0
    assert largest(without, 90) == 1


def test_code_is_loaded_once() -> None:
    cuda = RecordingCuda()
    on = a_runtime(cuda)
    for _ in range(3):
        on.launch("values", "CtcProblem", 1, 32, **arguments())
    assert cuda.images == [b"machine code"]
    assert on.launches == len(cuda.calls) == 3


def test_nothing_is_launched_over_nothing() -> None:
    cuda = RecordingCuda()
    a_runtime(cuda).launch("values", "CtcProblem", 0, 32, **arguments())
    assert cuda.calls == []


def test_fields_must_be_those_of_the_structure() -> None:
    on = a_runtime(RecordingCuda())
    with pytest.raises(TypeError, match=r"unknown \{'speed'\}"):
        on.launch("values", "CtcProblem", 1, 32, **arguments(speed=3))
    with pytest.raises(TypeError, match="lengths is on meta"):
        on.launch("values", "CtcProblem", 1, 32, **arguments(lengths=torch.zeros(1, device="meta")))


@pytest.mark.parametrize(
    ("call", "cluster"),
    [
        ("cuInit", 1), ("cuModuleLoadData", 1), ("cuModuleGetFunction", 1), ("cuLaunchKernel", 1),
        ("cuLaunchKernelEx", 2), ("cuCtxPushCurrent_v2", 1),
    ],
)  # fmt: skip
def test_what_the_driver_refuses_is_said(call: str, cluster: int) -> None:
    with pytest.raises(
        CudaError, match=rf"{call} failed: an illegal memory access was encountered \(CUDA's error 700\)"
    ) as caught:
        a_runtime(RecordingCuda(refuses=call)).launch(
            "values", "CtcProblem", 2, 32, 0, cluster, **arguments()
        )
    assert (caught.value.call, caught.value.code) == (call, 700)


def test_shared_memory_is_asked_for_before_it_is_used() -> None:
    cuda = RecordingCuda()
    a_runtime(cuda).launch("values", "CtcProblem", 1, 32, 60 << 10, **arguments())
    assert list(cuda.allowed.values()) == [cuda.largest_shared]


def test_a_machine_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(driver.ctypes, "CDLL", nothing)
    find_driver.cache_clear()
    with pytest.raises(CudaError, match="install the NVIDIA driver, or pass tensors on the CPU"):
        find_driver()
