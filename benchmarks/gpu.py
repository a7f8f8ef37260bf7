"""CTC, numerators and denominators on a GPU: scores → loss → gradient; CTC beside torch's own two implementations.

    python -m benchmarks.gpu [--turns 20]

Prints one table and keeps it in benchmarks/results/gpu-<device>.md. Times are medians over turns, measured by CUDA
events. The floor is the time to read the logits once and to write the gradient once at the bandwidth that a copy on the
same device reaches. Numerators are left-to-right models of 3 states a phone, one automaton an utterance: "compact"
delivers posteriors for the labels in use alone, and never touches the others. Denominators are one automaton for all
utterances, those of benchmarks.denominator; "weights" asks for gradients of the arcs' weights, too. Lattices are those
of benchmarks.lattice, whose structure is laid out in the first call, which isn't counted. Where k2 is installed with
its CUDA code, its exact sums stand beside ours, of float scores alone; "-" where it isn't, or where memory doesn't
suffice for it.

Times are those from an idle device to the end of a call, with what the host does meanwhile: checks, layouts, launches.
"graph" is the same step (of denominators the dense one) captured in a CUDA graph and replayed, as in a training step
that is one graph: on_infeasible="mask", targets and lengths on the device, where they are checked. A replay is one call
of the host's; nothing else of the host is in it.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import seqtrain as st
from benchmarks import denominator, lattice
from benchmarks.by_k2 import K2Sums
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.ops.cuda.runtime import runtime

_CASES = (("B16 T500 V500 U60", 16, 500, 500, 60), ("B32 T1500 V5000 U200", 32, 1500, 5000, 200))
_NUMERATORS = (
    ("B16 T500 V1500, 120 states", 16, 500, 1500, 40),
    ("B32 T1000 V6000, 399 states", 32, 1000, 6000, 133),
)
_DENOMINATORS = (
    ("3k states, 30k arcs, B8 T150 V3000", denominator.PEER),
    ("5k states, 100k arcs, B4 T500 V6000", {**denominator.LARGE, "batch": 4}),
    ("5k states, 100k arcs, B64 T500 V6000", denominator.LARGE),
)
_DTYPES = (torch.float32, torch.bfloat16)
_RESULTS = Path(__file__).parent / "results"


def milliseconds(work: Callable[[], object], turns: int) -> float:
    """Median time on the device."""
    work()
    times = []
    for _ in range(turns):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def replayed(step: Callable[[], object], turns: int) -> float:
    """Median time of the step's replays in a CUDA graph; warmed up on a stream of its own, as torch asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return milliseconds(graph.replay, turns)


def bandwidth(turns: int) -> float:
    """Bytes a second, reads and writes together, of a copy of 1 GiB."""
    source = torch.empty(1 << 28, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / (milliseconds(lambda: target.copy_(source), turns) * 1e-3)


def by_k2(scores: torch.Tensor, lengths: torch.Tensor, graphs: FsaBatch, turns: int) -> str:
    """Milliseconds of k2's exact sums and their gradient."""
    if scores.dtype != torch.float32 or importlib.util.find_spec("k2") is None:
        return "-"
    if not importlib.import_module("k2").with_cuda:
        return "-"
    try:
        return f"{milliseconds(K2Sums(scores, lengths, graphs), turns):.2f}"
    except torch.cuda.OutOfMemoryError:
        return "-"


def row(
    name: str, batch: int, frames: int, labels: int, width: int, dtype: torch.dtype, speed: float, turns: int
) -> str:
    """A line of the table."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(1, labels, (batch, width), generator=generator)
    lengths, target_lengths = torch.full((batch,), frames), torch.full((batch,), width)
    logits = torch.randn(batch, frames, labels, generator=generator).to("cuda", dtype).requires_grad_()

    def ours() -> None:
        loss = st.ctc_loss(logits, targets, lengths, target_lengths, normalize=True)
        torch.autograd.grad(loss.sum(), logits)

    def theirs(*integers: torch.Tensor) -> None:
        normalized = logits.float().log_softmax(-1).transpose(0, 1)
        loss = torch.nn.functional.ctc_loss(normalized, *integers, reduction="sum")
        torch.autograd.grad(loss, logits)

    device = runtime(logits.device)
    before = device.launches
    ours()
    launches = device.launches - before
    time = milliseconds(ours, turns)
    moved = 2 * logits.numel() * logits.element_size()
    on_device = (targets.cuda(), lengths.cuda(), target_lengths.cuda())
    native = milliseconds(lambda: theirs(*on_device), turns)

    def captured() -> None:
        loss = st.ctc_loss(
            logits, on_device[0], on_device[1], on_device[2], normalize=True, on_infeasible="mask"
        )
        torch.autograd.grad(loss.sum(), logits)

    graph = replayed(captured, turns)
    # What torch hands to cuDNN: int32 targets, one after the other, in host memory.
    for_cudnn = (targets.int().flatten(), lengths.int(), target_lengths.int())
    cudnn = milliseconds(lambda: theirs(*for_cudnn), turns)
    return (
        f"| {name} | {str(dtype).removeprefix('torch.')} | {time:.2f} | {graph:.2f} | {1e3 * moved / speed:.2f} | "
        f"{moved / time / 1e6:.0f} | {launches} | {native:.2f} | {cudnn:.2f} |"
    )


def numerator_row(
    name: str, batch: int, frames: int, labels: int, phones: int, dtype: torch.dtype, speed: float, turns: int
) -> str:
    """A line of the second table."""
    generator = torch.Generator().manual_seed(0)
    fsa = st.fsa.hmm(
        torch.randint(0, labels // 3, (batch, phones), generator=generator),
        torch.full((batch,), phones),
        states_per_label=3,
        transitions=st.fsa.Transitions.from_probabilities(loop=0.5),
    )
    lengths = torch.full((batch,), frames)
    scores = torch.randn(batch, frames, labels, generator=generator).to("cuda", dtype).requires_grad_()
    device = runtime(scores.device)

    def dense() -> None:
        torch.autograd.grad(st.full_sum(scores, lengths, fsa).sum(), scores)

    before = device.launches
    dense()
    launches = device.launches - before
    time = milliseconds(dense, turns)
    compact = milliseconds(lambda: st.compact_posteriors(scores, lengths, fsa), turns)
    path = milliseconds(lambda: st.best_path(scores, lengths, fsa), turns)
    written = scores.numel() * scores.element_size()  # of the scores, a part alone is read
    return (
        f"| {name} | {str(dtype).removeprefix('torch.')} | {time:.2f} | {1e3 * written / speed:.2f} | {launches} | "
        f"{compact:.2f} | {path:.2f} | {by_k2(scores, lengths, fsa, turns)} |"
    )


def denominator_row(name: str, case: dict[str, int], dtype: torch.dtype, speed: float, turns: int) -> str:
    """A line of the third table."""
    fsa = denominator.graph(case["states"], case["arcs"], case["labels"])
    weights = fsa.weights.cuda().requires_grad_()
    trained = Fsa(
        fsa.arcs,
        weights,
        num_states=fsa.num_states,
        start=fsa.start,
        final=(fsa.final_states, fsa.final_weights.cuda()),
    )
    generator = torch.Generator().manual_seed(0)
    lengths = torch.full((case["batch"],), case["frames"])
    copies = FsaBatch.from_list([fsa] * case["batch"])
    scores = torch.randn(case["batch"], case["frames"], case["labels"], generator=generator)
    scores = scores.to("cuda", dtype).requires_grad_()
    device = runtime(scores.device)

    def full() -> None:
        torch.autograd.grad(st.full_sum(scores, lengths, fsa).sum(), scores)

    def leaky() -> None:
        torch.autograd.grad(st.leaky_full_sum(scores, lengths, fsa).sum(), scores)

    def with_weights() -> None:
        torch.autograd.grad(st.full_sum(scores, lengths, trained).sum(), (scores, weights))

    lengths_on_device = lengths.cuda()

    def captured() -> None:
        loss = st.full_sum(scores, lengths_on_device, fsa, on_infeasible="mask")
        torch.autograd.grad(loss.sum(), scores)

    before = device.launches
    full()
    launches = device.launches - before
    compact = milliseconds(lambda: st.compact_posteriors(scores, lengths, fsa), turns)
    used = fsa.arcs[:, 2].unique().numel()
    moved = scores.numel() // case["labels"] * (case["labels"] + used) * scores.element_size()
    return (
        f"| {name} | {str(dtype).removeprefix('torch.')} | {milliseconds(full, turns):.2f} | "
        f"{replayed(captured, turns):.2f} | {1e3 * moved / speed:.2f} | {launches} | "
        f"{milliseconds(leaky, turns):.2f} | {compact:.2f} | "
        f"{milliseconds(with_weights, turns):.2f} | {by_k2(scores, lengths, copies, turns)} |"
    )


def lattice_row(turns: int) -> str:
    """A line of the table of lattices."""
    levels = lattice.Levels()
    on_device = levels.lattice.to("cuda")
    weights = on_device.weights.detach().requires_grad_()
    given = on_device.with_weights(weights)
    risks = torch.rand(weights.shape, device="cuda")
    calls = (
        lambda: st.lattice.total_score(on_device),
        lambda: torch.autograd.grad(st.lattice.total_score(given).sum(), weights),
        lambda: torch.autograd.grad(st.lattice.expected_risk(given, risks).sum(), weights),
    )
    device = runtime(weights.device)
    calls[1]()
    before = device.launches
    calls[1]()
    launches = device.launches - before
    times = " | ".join(f"{milliseconds(call, turns):.2f}" for call in calls)
    return f"| {lattice.LATTICES} of {weights.numel() // lattice.LATTICES} arcs | {times} | {launches} |"


def rows(turns: int) -> list[str]:
    """Lines of the table."""
    speed = bandwidth(turns)
    return [
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, copy {speed / 1e9:.0f} GB/s",
        "",
        "| case | dtype | seqtrain ms | graph ms | floor ms | GB/s | launches | torch ms | cuDNN ms |",
        "|---|---|---|---|---|---|---|---|---|",
        *(row(*case, dtype, speed, turns) for case in _CASES for dtype in _DTYPES),
        "",
        "| numerators | dtype | dense ms | floor ms | launches | compact ms | best path ms | k2 ms |",
        "|---|---|---|---|---|---|---|---|",
        *(numerator_row(*case, dtype, speed, turns) for case in _NUMERATORS for dtype in _DTYPES),
        "",
        "| denominators | dtype | dense ms | graph ms | floor ms | launches | leaky ms | compact ms | weights ms "
        "| k2 ms |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(denominator_row(*case, dtype, speed, turns) for case in _DENOMINATORS for dtype in _DTYPES),
        "",
        "| lattices | total ms | total and gradient ms | risk and gradient ms | launches |",
        "|---|---|---|---|---|",
        lattice_row(turns),
    ]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=20)
    turns = parser.parse_args().turns
    if not torch.cuda.is_available():
        print("torch finds no CUDA device on this machine", file=sys.stderr)
        return 1
    table = "\n".join(rows(turns)) + "\n"
    print(table)
    _RESULTS.mkdir(exist_ok=True)
    device = re.sub(r"\W+", "-", torch.cuda.get_device_name()).lower()
    (_RESULTS / f"gpu-{device}.md").write_text(table, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
