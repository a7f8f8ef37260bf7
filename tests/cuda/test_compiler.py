"""The kernels through NVRTC, which needs no GPU: every architecture, no spills; what is said when it can't."""

from __future__ import annotations

import contextlib
import ctypes
import locale
import re
import shutil
from typing import Any

import pytest

from seqtrain.errors import CudaError, MissingDependencyError
from seqtrain.ops.cuda import compiler
from seqtrain.ops.cuda.compiler import Compiler, find_compiler, libraries
from seqtrain.ops.cuda.source import OPTIONS, Source, problem_fields, source
from tests.cuda.resources import ARCHITECTURES, main, uses


def kernels_of(text: str) -> set[str]:
    """Names in the entry points."""
    return set(re.findall(r"SEQTRAIN_(?:[A-Z]+_)?KERNEL\((\w+),", text))


def compilers() -> list[Compiler]:
    """One of each version that packages here bring: torch's own, which may be older than the other one."""
    found: dict[str, Compiler] = {}
    for path in libraries():
        with contextlib.suppress(OSError):
            one = Compiler(ctypes.CDLL(str(path)))
            found.setdefault(one.version, one)
    return list(found.values())


@pytest.mark.timeout(600)  # each compiler takes a quarter of a minute of an idle processor
def test_the_kernels_compile_without_spills_and_a_block_fits() -> None:
    """By every compiler there is, for what all of them know; `python -m tests.cuda.resources` goes over the rest, and
    over the kernels in double, which take as long."""
    assert compilers()
    for one in compilers():
        check_kernels(one, ARCHITECTURES[0])


def check_kernels(of: Compiler, capability: int) -> None:
    in_float = "".join(line for line in source().main.splitlines(keepends=True) if "float64" not in line)
    found = of.compile(source()._replace(main=in_float), f"sm_{capability}", (*OPTIONS, "--ptxas-options=-v"))
    assert found.image[:4] == b"\x7fELF"
    for name in kernels_of(in_float):
        assert name.encode() in found.image
    reported = list(uses(found.log))
    assert {use.kernel for use in reported} == kernels_of(in_float)
    assert [use.fault for use in reported] == [None] * len(reported)


def test_what_does_not_fit_is_said() -> None:
    report = (
        "ptxas info : Compiling entry function 'sweep' for 'sm_90'\nptxas info : Function properties for sweep\n"
        "    0 bytes stack frame, {} bytes spill stores, 4 bytes spill loads\n"
        "ptxas info : Used {} registers, used 1 barriers, 16 bytes smem\n"
    )
    (use,) = uses(report.format(0, 129).replace("4 bytes spill loads", "0 bytes spill loads"))
    assert (use.kernel, use.registers, use.shared) == ("sweep", 129, 16)
    assert use.fault == "512 threads of 129 registers don't fit into 65536"
    (use,) = uses(report.format(8, 40))
    assert use.fault == "spills 12 bytes"


def test_without_the_toolkit_it_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert main(["--nvcc"]) == 0
    assert "nvcc is not on this machine" in capsys.readouterr().out


def test_a_device_newer_than_the_compiler_gets_intermediate_code() -> None:
    known = find_compiler()
    newest = known.architectures()[-1]
    target = known.target(newest + 10)
    assert target == f"compute_{newest}"
    assert (
        b".version" in known.compile(Source('extern "C" __global__ void f() {}', {}), target, OPTIONS).image
    )


def test_a_device_too_old_is_refused() -> None:
    with pytest.raises(CudaError, match=r"compute capability 2\.0"):
        find_compiler().target(20)


def test_messages_of_the_compiler_are_passed_on() -> None:
    first = find_compiler()
    target = first.target(first.architectures()[-1])
    with pytest.raises(CudaError, match="undefined") as caught:
        first.compile(Source("int f() { return nowhere; }", {}), target, OPTIONS)
    assert caught.value.call == "nvrtcCompileProgram"


def test_the_locale_stays() -> None:
    before = locale.nl_langinfo(locale.CODESET)
    for one in compilers():
        one.compile(Source("", {}), f"compute_{one.architectures()[-1]}", ())
        assert locale.nl_langinfo(locale.CODESET) == before, f"NVRTC {one.version} changed it"


def test_a_machine_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(compiler.ctypes, "CDLL", nothing)
    find_compiler.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"pip install 'seqtrain\[cuda\]'"):
        find_compiler()


def test_a_compiler_that_fails() -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: 5

    with pytest.raises(CudaError, match="nvrtcVersion failed with NVRTC's error 5"):
        Compiler(Broken())


def test_sources_need_no_header_of_cuda_or_of_the_standard_library() -> None:
    included = {
        name
        for text in (source().main, *source().headers.values())
        for name in re.findall(r'#include "([^"]+)"', text)
    }
    assert included <= {*source().headers, "../emulation/team.h", "../recursion/number.h"}


def test_structures_have_their_fields() -> None:
    fields = dict(problem_fields("CtcProblem"))
    assert list(fields)[:2] == ["batch", "max_frames"]
    with pytest.raises(KeyError):
        problem_fields("NoProblem")
