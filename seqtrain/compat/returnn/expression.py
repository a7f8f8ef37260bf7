"""Arithmetic of RETURNN's layer `eval`: numbers, `source(i)`, + - * / ** and parentheses, and nothing else."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch

from seqtrain.errors import ConfigError

__all__ = ["evaluate"]

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def evaluate(expression: str, sources: Sequence[torch.Tensor]) -> torch.Tensor:
    """The value of an expression over tensors.

    Raises:
        ConfigError: it isn't such arithmetic.
    """

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return _BINARY[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return node.value
        match node:
            case ast.Call(func=ast.Name(id="source"), args=[ast.Constant(value=int(index))], keywords=[]):
                if 0 <= index < len(sources):
                    return sources[index]
        raise ConfigError(
            f"eval {expression!r}: {ast.unparse(node)!r} is no arithmetic of numbers and source(0) … "
            f"source({len(sources) - 1})",
            key="eval",
        )

    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError as error:
        raise ConfigError(f"eval {expression!r} can't be read: {error.msg}", key="eval") from error
    return torch.as_tensor(value(tree.body))
