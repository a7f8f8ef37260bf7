"""The sweeps over lattices on CUDA (csrc/cuda/lattice.h), for the total score and for the expected risk.

The structure of the lattices is laid out in host memory, where arcs on the device are copied to, once for all calls
over the same lattices (`seqtrain.ops.cuda.lattice_layout`). Weights and risks stay on the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from seqtrain.ops.cuda.lattice_layout import lay_out_once
from seqtrain.ops.cuda.runtime import Argument, Runtime, threads_for
from seqtrain.ops.lattices import Lattices

__all__ = ["Risks", "Swept", "sweep"]

_WIDE = 2  # numbers of 8 bytes of a state: a mantissa and an exponent
_LANES_OF_STATE = 8  # csrc/cuda/lattice.h
_SWEEP_THREADS = 512
_ITEM_THREADS = 256
_ITEMS_OF_THREAD = 4  # arcs, in the launches over arcs
_MOST_CHUNKS = 64


class Risks(NamedTuple):
    """Of arcs (ΣA,) and of final states (ΣF,), float64 on the device."""

    arcs: torch.Tensor
    finals: torch.Tensor


class Swept(NamedTuple):
    """What the launches have left, all on the device, float64 but for `status` and `fault`.

    Attributes:
        value: (B,) log of the sum over the paths, -inf without one.
        status: (B,) int64, `arguments.NO_PATH` without a path.
        fault: (B,) int64, 1 + the first arc or -1 - the first final state that can't be used, in host memory; None:
            there is none.
        arc_posteriors, final_posteriors: (ΣA,), (ΣF,); (0,) without gradient.
        risk: (B,) expected, 0 without a path; (0,) without risks, as are the gradients.
        arc_gradients, final_gradients: (ΣA,), (ΣF,) its derivatives by weights.
    """

    value: torch.Tensor
    status: torch.Tensor
    fault: torch.Tensor | None
    arc_posteriors: torch.Tensor
    final_posteriors: torch.Tensor
    risk: torch.Tensor
    arc_gradients: torch.Tensor
    final_gradients: torch.Tensor


def sweep(
    on: Runtime,
    kind: str,
    lattices: Lattices,
    *,
    smallest_weight: float,
    largest_weight: float,
    with_gradient: bool,
    risks: Risks | None = None,
    starts: torch.Tensor | None = None,
) -> Swept:
    """Launches the kernels whose names begin with `kind`.

    Weights must lie below `largest_weight`; at `smallest_weight` and below, they count as -inf. `starts` (B,) are the
    first states; None: 0. Where there is a fault, the other results hold anything.
    """
    device, batch = on.device, lattices.size

    def empty(*size: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device=device)

    arcs, finals = lattices.arcs.shape[0], lattices.final_states.shape[0]
    by_arc, by_final = (arcs, finals) if with_gradient else (0, 0)
    risky = risks is not None
    layout, fault = lay_out_once(on, lattices)
    chunks = 1
    if layout is not None:
        chunks = min(_MOST_CHUNKS, max(1, -(-layout.arcs // (_ITEM_THREADS * _ITEMS_OF_THREAD))))
    # What went wrong in one piece, so that the host waits for it once.
    report = torch.zeros(batch * (1 + chunks), dtype=torch.int64, device=device)
    found = Swept(
        value=empty(batch),
        status=report[:batch],
        fault=None,
        arc_posteriors=empty(by_arc),
        final_posteriors=empty(by_final),
        risk=empty(batch if risky else 0),
        arc_gradients=empty(by_arc if risky else 0),
        final_gradients=empty(by_final if risky else 0),
    )
    if layout is None:
        return found._replace(fault=fault)
    if batch == 0:
        return found
    states = layout.all_states
    state_bytes = layout.states * 8 * (_WIDE + risky)
    in_shared = on.fits(state_bytes)

    def double(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(device=device, dtype=torch.float64).contiguous()

    problem: dict[str, Argument] = {
        "batch": batch,
        "directions": 2 if with_gradient else 1,
        "chunks": chunks,
        "in_shared": in_shared,
        "most_states": layout.states,
        "tables": layout.tables,
        "integers": layout.integers,
        "starts": None if starts is None else starts.to(device=device, dtype=torch.int32).contiguous(),
        "arcs": lattices.arcs.to(device=device, dtype=torch.int32).contiguous(),
        "weights": double(lattices.weights),
        "final_weights": double(lattices.final_weights),
        "largest_weight": largest_weight,
        "smallest_weight": smallest_weight,
        "leaving": empty(arcs, _WIDE),
        "entering": empty(arcs, _WIDE),
        "entering_source": empty(arcs, dtype=torch.int32),
        "finals": empty(finals, _WIDE),
        "ahead": empty(states, _WIDE),
        "behind": empty(states, _WIDE),
        "value": found.value,
        "status": found.status,
        "faults": report[batch:],
        "arc_posteriors": found.arc_posteriors,
        "final_posteriors": found.final_posteriors,
        "risks": risks.arcs if risks is not None else None,
        "final_risks": risks.finals if risks is not None else None,
        "entering_risk": empty(arcs if risky else 0),
        "risk_ahead": empty(states if risky else 0),
        "risk_behind": empty(states if risky else 0),
        "risk": found.risk,
        "arc_gradients": found.arc_gradients,
        "final_gradients": found.final_gradients,
    }

    def launch(step: str, blocks: int, threads: int, shared_bytes: int = 0) -> None:
        on.launch(f"{kind}_{step}", "LatticeProblem", blocks, threads, shared_bytes, **problem)

    launch("weights", batch * chunks, _ITEM_THREADS)
    launch(
        "sweep", batch * (2 if with_gradient else 1), threads_for(layout.widest * _LANES_OF_STATE, _SWEEP_THREADS),
        state_bytes if in_shared else 0,
    )  # fmt: skip
    if with_gradient:
        launch("posteriors", batch * chunks, _ITEM_THREADS)
    faults = report.cpu()[batch:].view(batch, chunks)
    return found._replace(fault=_first(faults)) if bool(faults.any()) else found


def _first(faults: torch.Tensor) -> torch.Tensor:
    """(B,) of what each chunk found of its lattice: an arc rather than a final state, and of either kind the first."""
    none = torch.iinfo(torch.int64).max
    arcs = torch.where(faults > 0, faults, none).amin(1)
    finals = torch.where(faults < 0, faults, -none).amax(1)
    return torch.where(arcs < none, arcs, torch.where(finals > -none, finals, 0))
