"""The sum over the paths of a lattice, and the posteriors of its arcs."""

from __future__ import annotations

import torch

from seqtrain.errors import DeviceError, DtypeError
from seqtrain.lattice.lattice import Lattice
from seqtrain.ops.lattice_total import lattice_total
from seqtrain.scores import check_derivative

__all__ = ["arc_posteriors", "check_on_host", "operands", "total_score"]


def check_on_host(lattice: Lattice) -> None:
    """Raises DtypeError or DeviceError where a kernel can't read the lattice."""
    if not isinstance(lattice, Lattice):
        raise DtypeError(f"lattice must be a Lattice, got {type(lattice).__name__}", argument="lattice")
    if lattice.device.type != "cpu":
        raise DeviceError(
            f"the lattice is on {lattice.device}, and this version has kernels for the CPU alone: pass "
            "lattice.to('cpu')",
            argument="lattice",
        )


def operands(lattice: Lattice) -> tuple[torch.Tensor, ...]:
    """The lattice's tensors in the operators' order."""
    return (
        lattice.arcs, lattice.weights, lattice.arc_offsets, lattice.state_offsets, lattice.final_states,
        lattice.final_weights, lattice.final_offsets,
    )  # fmt: skip


def total_score(lattice: Lattice) -> torch.Tensor:
    """Log of the sum over all paths of exp(path score), differentiable with respect to arc and final weights.

    Computed in float64 whatever the weights' dtype, with a range that no sum over paths leaves. Equation:
    `seqtrain.reference.lattice_total_score`.

    Returns:
        (B,) of the dtype of the weights; larger is better; -inf where an utterance has no path, with gradient 0. The
        gradient with respect to the arc weights are the arcs' posteriors.

    Raises:
        FsaError: a weight is NaN, +inf or above 1e12.
        DerivativeError: when the gradient is differentiated again.
    """
    check_on_host(lattice)
    check_derivative(lattice.weights, lattice.final_weights)
    with_gradient = torch.is_grad_enabled() and (
        lattice.weights.requires_grad or lattice.final_weights.requires_grad
    )
    value: torch.Tensor = lattice_total(*operands(lattice), with_gradient)[0]
    return value


def arc_posteriors(lattice: Lattice) -> torch.Tensor:
    """(ΣA,) float64 probability that a path takes the arc; without gradient.

    In a lattice whose arcs take one frame each, those of a frame sum to one.

    Raises:
        FsaError: a weight is NaN, +inf or above 1e12.
    """
    check_on_host(lattice)
    posteriors: torch.Tensor = lattice_total(*(t.detach() for t in operands(lattice)), True)[1]
    return posteriors
