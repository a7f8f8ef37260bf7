"""Compiled kernels on disk."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from seqtrain.ops.cuda import cache
from seqtrain.ops.cuda.cache import cache_directory, cache_key, compiled
from seqtrain.ops.cuda.compiler import Compiled
from seqtrain.ops.cuda.source import Source

_TEXT = Source("main", {"a.h": "a", "b.h": "b"})


class CountingCompiler:
    version = "13.0"

    def __init__(self) -> None:
        self.count = 0

    def target(self, capability: int) -> str:
        return f"sm_{capability}"

    def compile(self, text: Source, target: str, options: tuple[str, ...]) -> Compiled:
        self.count += 1
        return Compiled(f"{target} of {text.main}".encode() * 1000, "")


def test_compiled_once(tmp_path: Path) -> None:
    compiler = CountingCompiler()
    first = compiled(compiler, _TEXT, 90, tmp_path)
    assert compiled(compiler, _TEXT, 90, tmp_path) == first
    assert compiler.count == 1
    assert compiled(compiler, _TEXT, 80, tmp_path) != first
    assert compiler.count == 2


def test_the_key_is_made_of_all_that_matters() -> None:
    keys = {
        cache_key(_TEXT, "sm_90", ("-a",), "13.0"),
        cache_key(_TEXT, "sm_80", ("-a",), "13.0"),
        cache_key(_TEXT, "sm_90", ("-b",), "13.0"),
        cache_key(_TEXT, "sm_90", ("-a",), "13.1"),
        cache_key(_TEXT._replace(main="other"), "sm_90", ("-a",), "13.0"),
        cache_key(_TEXT._replace(headers={"a.h": "ab", "b.h": ""}), "sm_90", ("-a",), "13.0"),
    }
    assert len(keys) == 6


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:40] + b"x" + b[41:]])
def test_a_damaged_file_is_compiled_again(tmp_path: Path, damage: object) -> None:
    compiler = CountingCompiler()
    first = compiled(compiler, _TEXT, 90, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert compiled(compiler, _TEXT, 90, tmp_path) == first
    assert compiler.count == 2
    assert compiled(compiler, _TEXT, 90, tmp_path) == first
    assert compiler.count == 2


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    compiler = CountingCompiler()
    (tmp_path / "file").write_text("in the way")
    assert compiled(compiler, _TEXT, 90, tmp_path / "file" / "deeper")
    assert compiler.count == 1


def _compile_often(directory: Path) -> bool:
    expected = CountingCompiler().compile(_TEXT, "sm_90", ()).image
    for _ in range(50):
        if compiled(CountingCompiler(), _TEXT, 90, directory) != expected:
            return False
        for path in directory.glob("*.sm_90"):
            path.unlink(missing_ok=True)
    return True


def test_many_processes(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert all(pool.map(_compile_often, [tmp_path] * 3))


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "seqtrain" / "cuda"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(cache.Path, "home", lambda: Path("/home/someone"))
    assert cache_directory() == Path("/home/someone/.cache/seqtrain/cuda")
