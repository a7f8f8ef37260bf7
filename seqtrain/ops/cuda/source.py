"""The text of the kernels as the run-time compiler takes it, and the structures that they are launched with."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["OPTIONS", "Source", "problem_fields", "problem_names", "problem_type", "source"]

# No contraction of multiply and add: each operation rounds once, as it does on the host. NVRTC before 12 takes lambdas
# for host functions unless all that's not annotated is device code.
OPTIONS = (
    "--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true",
    "--device-as-default-execution-space",
)  # fmt: skip

_MAIN = "kernels.cu"
_HERE = Path(__file__).parent
# In an installed package the sources stand beside this file, in a checkout where they are written.
_INSTALLED, _CHECKOUT = _HERE / "csrc", _HERE.parents[2] / "csrc"


class Source(NamedTuple):
    """`main` and the headers that it includes, by the names under which it does."""

    main: str
    headers: Mapping[str, str]


@cache
def source() -> Source:
    """Read once."""
    root = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
    headers = {path.name: path.read_text("utf-8") for path in sorted((root / "cuda").glob("*.h"))}
    for name in ("ctc_targets.h", "number.h", "status.h", "wide.h"):
        headers[f"../recursion/{name}"] = (root / "recursion" / name).read_text("utf-8")
    return Source((root / "cuda" / _MAIN).read_text("utf-8"), headers)


@cache
def problem_fields(name: str) -> tuple[tuple[str, type], ...]:
    """(field, ctypes type) of a structure, in the order of its declaration. Every field has 64 bits."""
    for text in source().headers.values():
        found = re.search(rf"struct {name} {{\n(.*?)\n}};", text, re.DOTALL)
        if found is None:
            continue
        fields: list[tuple[str, type]] = []
        for line in found[1].splitlines():
            declared = re.fullmatch(r"\s*(.+?[ *])(\w+);.*", line)
            if declared is None:
                raise ValueError(f"{name}: not a field: {line!r}")
            kind = declared[1].strip()
            fields.append((declared[2], ctypes.c_double if kind == "double" else ctypes.c_int64))
            if kind not in ("double", "int64_t") and not kind.endswith("*"):
                raise ValueError(f"{name}.{declared[2]} is a {kind}, which has no 64 bits")
        return tuple(fields)
    raise KeyError(name)


@cache
def problem_names(name: str) -> tuple[str, ...]:
    """Its fields, in that order."""
    return tuple(field for field, _ in problem_fields(name))


@cache
def problem_type(name: str) -> type[ctypes.Structure]:
    """The structure as ctypes has it."""
    return type(name, (ctypes.Structure,), {"_fields_": list(problem_fields(name))})
