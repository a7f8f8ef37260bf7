"""`torch.func` and forward-mode derivatives: what works gives what `torch.autograd` gives, the rest is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import seqtrain as st
from seqtrain.errors import ArgumentError, DerivativeError, InfeasibleError
from tests.ops.examples import random_ctc_batch, random_topology

pytestmark = [
    # torch.func, and with it operators of others in forward mode.
    pytest.mark.torch2,
    # Torch loads its forward-mode rules with what torch itself has deprecated.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
]

Function = Callable[[torch.Tensor], torch.Tensor]
NAMES = ("ctc", "normalized ctc", "full sum", "posteriors", "arc weights", "final weights", "packed")


def example(name: str) -> tuple[Function, torch.Tensor]:
    """A scalar function in double precision and where to take it."""
    scores, *rest = random_ctc_batch(1, batch=2, frames=5, targets=2, labels=3, dtype=torch.float64)
    other, lengths, graphs = random_topology("hmm", 1, batch=2, frames=6, dtype=torch.float64)
    finals = torch.linspace(-0.5, 0.5, len(graphs.final_weights), dtype=torch.float64)
    factor = torch.linspace(0, 1, 8, dtype=torch.float64)
    offsets = torch.tensor([0, *lengths.cumsum(0).tolist()])
    rows = torch.cat([other[b, :length] for b, length in enumerate(lengths.tolist())])
    functions: dict[str, tuple[Function, torch.Tensor]] = {
        "ctc": (lambda x: st.ctc_loss(x, *rest).sum(), scores),
        "normalized ctc": (lambda x: st.ctc_loss(x, *rest, normalize=True).sum(), scores),
        "full sum": (lambda x: st.full_sum(x, lengths, graphs).sum(), other),
        "posteriors": (lambda x: (st.posteriors(x, lengths, graphs) * factor).sum(), other),
        "arc weights": (
            lambda w: st.full_sum(other, lengths, graphs.with_weights(w)).sum(),
            graphs.weights.clone(),
        ),
        "final weights": (
            lambda f: st.full_sum(other, lengths, graphs.with_weights(graphs.weights, f)).sum(),
            finals,
        ),
        "packed": (lambda x: st.full_sum(st.Packed(x, offsets), lengths, graphs).sum(), rows),
    }
    return functions[name]


def gradient(function: Function, x: torch.Tensor) -> torch.Tensor:
    """By torch.autograd."""
    leaf = x.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(function(leaf), leaf)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_grad(name: str) -> None:
    function, x = example(name)
    torch.testing.assert_close(torch.func.grad(function)(x), gradient(function, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_jvp(name: str) -> None:
    function, x = example(name)
    direction = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view(x.shape)
    value, slope = torch.func.jvp(function, (x,), (direction,))
    torch.testing.assert_close(value, function(x), rtol=1e-12, atol=0)
    torch.testing.assert_close(slope, (gradient(function, x) * direction).sum(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_dual_tensors(name: str) -> None:
    function, x = example(name)
    direction = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view(x.shape)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, direction)  # type: ignore[no-untyped-call]  # torch has no types here
        slope = torch.autograd.forward_ad.unpack_dual(function(dual)).tangent  # type: ignore[no-untyped-call]  # nor here
    torch.testing.assert_close(slope, (gradient(function, x) * direction).sum(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "posteriors"])
@pytest.mark.parametrize("way", ["hessian", "reverse over reverse"])
def test_hessian(name: str, way: str) -> None:
    """It isn't zero, and like the one that torch.autograd makes row by row."""
    function, x = example(name)
    expected = torch.autograd.functional.hessian(function, x)  # type: ignore[no-untyped-call]  # of torch
    transform = torch.func.hessian if way == "hessian" else lambda f: torch.func.jacrev(torch.func.jacrev(f))
    found = transform(function)(x)
    if name != "final weights":  # of which each automaton has one alone
        assert found.abs().max() > 0.01
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_vmap(name: str) -> None:
    function, x = example(name)
    several = torch.stack([x, x + 0.5, 2 * x], dim=1)
    found = torch.func.vmap(function, in_dims=1)(several)
    expected = torch.stack([function(several[:, i]) for i in range(3)])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_vmap_of_grad() -> None:
    function, x = example("full sum")
    several = torch.stack([x, 2 * x])
    found = torch.func.vmap(torch.func.grad(function))(several)
    torch.testing.assert_close(found, torch.stack([gradient(function, x), gradient(function, 2 * x)]))


def test_autograd_through_vmap() -> None:
    """Ordinary leaves outside get their gradient."""
    function, x = example("full sum")
    leaf = torch.stack([x, 2 * x]).requires_grad_()
    (found,) = torch.autograd.grad(torch.func.vmap(function)(leaf).sum(), leaf)
    torch.testing.assert_close(found, torch.stack([gradient(function, x), gradient(function, 2 * x)]))


def test_functional_call() -> None:
    """The derivative with respect to a module's parameters as arguments."""
    scores, *rest = random_ctc_batch(2, batch=2, frames=6, targets=2, labels=4)
    layer = torch.nn.Linear(4, 4)
    parameters = {name: parameter.detach() for name, parameter in layer.named_parameters()}

    def loss(p: dict[str, torch.Tensor]) -> torch.Tensor:
        return st.ctc_loss(torch.func.functional_call(layer, p, (scores,)), *rest, normalize=True).sum()

    found = torch.func.grad(loss)(parameters)
    expected = torch.autograd.grad(
        st.ctc_loss(layer(scores), *rest, normalize=True).sum(), list(layer.parameters())
    )
    torch.testing.assert_close(tuple(found.values()), expected)


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: torch.func.jacfwd(torch.func.jacfwd(f)),
        lambda f: torch.func.jacrev(torch.func.jacfwd(f)),
        lambda f: torch.func.jacrev(torch.func.hessian(f)),
        lambda f: torch.func.jacfwd(torch.func.hessian(f)),
    ],
    ids=["forward over forward", "reverse over forward", "third, reverse", "third, forward"],
)
def test_what_is_refused(transform: Callable[[Function], Function]) -> None:
    function, x = example("full sum")
    with pytest.raises(
        DerivativeError, match=r"take torch\.func\.hessian, which is forward mode over reverse"
    ):
        transform(function)(x)


def test_best_path_is_refused() -> None:
    scores, lengths, graphs = random_topology("hmm", 3, batch=2, frames=6)
    function: Function = lambda x: st.best_path(x, lengths, graphs).score.sum()  # noqa: E731  # as the others
    with pytest.raises(DerivativeError, match=r"torch\.func's derivatives don't reach this operator"):
        torch.func.grad(function)(scores)
    with pytest.raises(DerivativeError, match="make the mapped axis a part of the batch"):
        torch.func.vmap(function)(torch.stack([scores, scores]))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(scores, scores)  # type: ignore[no-untyped-call]  # of torch
        with pytest.raises(DerivativeError, match="there is no forward-mode derivative"):
            function(dual)


def test_other_arguments_cannot_be_mapped() -> None:
    scores, targets, lengths, target_lengths = random_ctc_batch(3)
    with pytest.raises(ArgumentError, match=r"lengths can't be mapped by torch\.func\.vmap") as error:
        torch.func.vmap(lambda n: st.ctc_loss(scores, targets, n, target_lengths))(lengths.expand(2, -1))
    assert error.value.argument == "lengths"


def test_gradient_out_is_refused() -> None:
    scores, lengths, graphs = random_topology("hmm", 4)
    memory = torch.empty_like(scores)
    with pytest.raises(ArgumentError, match=r"gradient_out can't be used under torch\.func"):
        torch.func.grad(lambda x: st.full_sum(x, lengths, graphs, gradient_out=memory).sum())(scores)


def test_infeasible_utterances() -> None:
    """Found, named, masked and counted there too."""
    scores, lengths, graphs = random_topology("ctc", 5)
    lengths = lengths.clone()
    lengths[1] = 0
    count = st.InfeasibleCount()
    named = graphs.with_tags(["a", "b", "c"])
    with pytest.raises(InfeasibleError, match=r"utterance 1 \(b\)"):
        torch.func.grad(lambda x: st.full_sum(x, lengths, named).sum())(scores)
    found = torch.func.grad(
        lambda x: st.full_sum(x, lengths, graphs, on_infeasible="mask", infeasible=count).sum()
    )(scores)
    assert not found[1].any()
    assert found[0].any()
    assert (count.infeasible, count.utterances) == (1, 3)
