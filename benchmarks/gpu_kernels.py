"""Where a training step's time goes on a GPU: each kernel's, by torch's profiler, and the whole step's by the clock.

    python -m benchmarks.gpu_kernels [ctc ctc_half numerators denominators denominators_leaky denominators_few]

The cases are the large ones of benchmarks.gpu. Times are means over five steps after three that aren't counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

import seqtrain as st
from benchmarks import denominator

_STEPS, _WARM_UP = 5, 3


def _ctc(dtype: torch.dtype) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(1, 5000, (32, 200), generator=generator)
    lengths, target_lengths = torch.full((32,), 1500), torch.full((32,), 200)
    logits = torch.randn(32, 1500, 5000, device="cuda").to(dtype).requires_grad_()
    return lambda: torch.autograd.grad(
        st.ctc_loss(logits, targets, lengths, target_lengths, normalize=True).sum(), logits
    )


def _numerators() -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    fsa = st.fsa.hmm(
        torch.randint(0, 2000, (32, 133), generator=generator),
        torch.full((32,), 133),
        states_per_label=3,
        transitions=st.fsa.Transitions.from_probabilities(loop=0.5),
    )
    lengths, scores = torch.full((32,), 1000), torch.randn(32, 1000, 6000, device="cuda").requires_grad_()
    return lambda: torch.autograd.grad(st.full_sum(scores, lengths, fsa).sum(), scores)


def _denominators(batch: int, *, leaky: bool = False) -> Callable[[], object]:
    case = denominator.LARGE
    fsa = denominator.graph(case["states"], case["arcs"], case["labels"])
    lengths = torch.full((batch,), case["frames"])
    scores = torch.randn(batch, case["frames"], case["labels"], device="cuda").requires_grad_()
    total = st.leaky_full_sum if leaky else st.full_sum
    return lambda: torch.autograd.grad(total(scores, lengths, fsa).sum(), scores)


CASES: dict[str, Callable[[], Callable[[], object]]] = {
    "ctc": lambda: _ctc(torch.float32),
    "ctc_half": lambda: _ctc(torch.bfloat16),
    "numerators": _numerators,
    "denominators": lambda: _denominators(64),
    "denominators_leaky": lambda: _denominators(64, leaky=True),
    "denominators_few": lambda: _denominators(4),
}


def show(name: str) -> None:
    """Prints a case's table."""
    step = CASES[name]()
    for _ in range(_WARM_UP):
        step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as recorded:
        for _ in range(_STEPS):
            step()
        torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(_STEPS):
        step()
    torch.cuda.synchronize()
    print(f"{name}: {1e3 * (time.perf_counter() - begin) / _STEPS:.2f} ms a step")
    kernels = [
        event for event in recorded.key_averages() if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    for event in sorted(kernels, key=lambda event: -event.device_time_total):
        print(
            f"{event.device_time_total / _STEPS / 1e3:9.3f} ms {event.count / _STEPS:5.1f}x {event.key[:90]}"
        )


def main(names: list[str]) -> int:
    """The command line."""
    if not torch.cuda.is_available():
        print("torch finds no CUDA device on this machine", file=sys.stderr)
        return 1
    for name in names or CASES:
        show(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
