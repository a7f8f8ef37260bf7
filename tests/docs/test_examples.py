"""The program that runs the documentation's examples: it must find them, and fail with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.examples import blocks, broken_links, main


def test_finds_python_blocks_and_their_lines() -> None:
    page = "# T\n```python\na = 1\nb = a\n```\ntext\n```console\n$ no\n```\n```python\nc = b\n```\n"
    assert list(blocks(page)) == [(3, "a = 1\nb = a\n"), (11, "c = b\n")]


def test_blocks_share_a_namespace_and_errors_name_the_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\na = 1\n```\n\n```python\nassert a == 2\n```\n")
    with pytest.raises(AssertionError) as caught:
        main([str(page)])
    assert caught.traceback[-1].lineno == 5  # counted from 0


def test_a_page_without_examples_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(SystemExit, match="no examples found"):
        main([str(page)])


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "there.md").write_text("")
    page.write_text("[a](there.md) [b](gone.md) [c](there.md#part) [d](https://example.org/x)\n")
    assert broken_links(page) == ["gone.md"]
    with pytest.raises(SystemExit, match=r"page\.md links to gone\.md"):
        main([str(page)])
