"""What older torch lacks is asked for in one file alone; its substitutes do the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import seqtrain
from seqtrain import torch_versions

NEWER = re.compile(
    r"torch\.library\.register_(fake|autograd)|torch\.compiler\.|increment_version\(.*graph|autograd\.graph\.increment"
    r"|untyped_storage|torch\._C\._functorch|torch\.func\."
)
FILES = sorted(Path(seqtrain.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", [f for f in FILES if f.name != "torch_versions.py"], ids=lambda f: f.name)
def test_no_other_file_needs_a_new_torch(path: Path) -> None:
    # What is quoted is prose.
    code = re.sub(r'`[^`\n]*`|"[^"\n]*"', "", path.read_text())
    found = NEWER.search(code)
    assert found is None, f"{path} uses {found.group()}: see seqtrain/torch_versions.py"


def test_an_empty_write_counts_as_a_write() -> None:
    tensor = torch.ones(3)
    before = tensor._version
    torch_versions._increment_version_by_empty_write(tensor)
    assert tensor._version == before + 1
    assert tensor.tolist() == [1, 1, 1]


def test_the_storage_of_a_view() -> None:
    tensor = torch.zeros(4)
    assert torch_versions.storage_address(tensor[2:]) == torch_versions.storage_address(tensor)
    assert torch_versions.storage_address(tensor) != torch_versions.storage_address(torch.zeros(4))


def test_a_derivative_without_register_autograd() -> None:
    """The way that torch before 2.4 goes, which newer ones can go, too: value, gradient, a refusal's own error."""
    library = torch.library.Library("seqtrain_test_versions", "DEF")
    library.define("double_it(Tensor x, int times, Tensor? nothing) -> (Tensor y, Tensor count)")
    library.impl("double_it", lambda x, times, nothing: (x * 2**times, torch.tensor(times)), "CPU")

    def save(ctx, inputs, output):  # type: ignore[no-untyped-def]
        ctx.factor = 2 ** inputs[1]

    def backward(ctx, gradient, _):  # type: ignore[no-untyped-def]
        return ctx.factor * gradient, None, None

    torch_versions._register_function("seqtrain_test_versions::double_it", backward, save, library)
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    y, count = torch.ops.seqtrain_test_versions.double_it(x, 3, None)
    assert y.tolist() == [8, 8]
    assert not count.requires_grad
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [8, 8]
    assert torch.ops.seqtrain_test_versions.double_it(x.detach(), 1, None)[0].grad_fn is None
