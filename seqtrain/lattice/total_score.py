"""The sum over the paths of a lattice, and the posteriors of its arcs."""

from __future__ import annotations

import torch

from seqtrain.errors import DeviceError, DtypeError
from seqtrain.lattice.lattice import Lattice
from seqtrain.ops.lattice_total import lattice_total
from seqtrain.scores import check_derivative

__all__ = ["arc_posteriors", "check_on_host", "check_summable", "operands", "total_score"]


def check_on_host(lattice: Lattice) -> None:
    """Raises DtypeError or DeviceError where a kernel of the CPU can't read the lattice."""
    _check_device(lattice, ("cpu",), "a kernel for the CPU alone")


def check_summable(lattice: Lattice) -> None:
    """Likewise for sums over all paths, which have kernels for CUDA, too."""
    _check_device(lattice, ("cpu", "cuda"), "kernels for the CPU and for CUDA")


def _check_device(lattice: Lattice, devices: tuple[str, ...], kernels: str) -> None:
    if not isinstance(lattice, Lattice):
        raise DtypeError(f"lattice must be a Lattice, got {type(lattice).__name__}", argument="lattice")
    if lattice.device.type not in devices:
        raise DeviceError(
            f"the lattice is on {lattice.device}, and this function has {kernels}: pass lattice.to('cpu')",
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
        DeviceError: the lattice is neither on the CPU nor on a CUDA device.
        DerivativeError: when the gradient is differentiated again.
    """
    check_summable(lattice)
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
    check_summable(lattice)
    # The arcs themselves: by them a device knows a structure that it has laid out.
    inputs = (t.detach() if t.requires_grad else t for t in operands(lattice))
    posteriors: torch.Tensor = lattice_total(*inputs, True)[1]
    return posteriors
