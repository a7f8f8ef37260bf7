"""Runs the Python examples of the README and of the pages here: `python -m docs.examples [PAGE …]`.

The blocks of a page run in order in one namespace, as a reader would type them. A block that raises ends the run with
its page and line, and so does a link to a file that isn't there. Blocks marked `python k2` need k2, and run with `--k2`
alone: in the environment of `tests/k2/run`. Blocks marked `python cuda` need a GPU, and run nowhere: tests/gpu takes
the same steps.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["blocks", "broken_links", "main"]

_ROOT = Path(__file__).resolve().parent.parent


def blocks(text: str, *, with_k2: bool = False) -> Iterator[tuple[int, str]]:
    """(first line, code) of each fenced block marked `python`, or also of those marked `python k2`."""
    marks = ("```python", "```python k2") if with_k2 else ("```python",)
    start, code = 0, list[str]()
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("```"):
            if start:
                yield start, "\n".join(code) + "\n"
                start = 0
            elif line.strip() in marks:
                start, code = number + 1, []
        elif start:
            code.append(line)


def broken_links(page: Path) -> list[str]:
    """Links of a page to files that don't exist."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    return [link for link in links if not (page.parent / link).exists()]


def _run(page: Path, *, with_k2: bool) -> int:
    broken = broken_links(page)
    if broken:
        sys.exit(f"{page.name} links to {', '.join(broken)}: no such file")
    namespace = {"__name__": "__main__"}
    count = 0
    for line, code in blocks(page.read_text(), with_k2=with_k2):
        # Blank lines in front, so that a traceback names the page's own lines.
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)
        count += 1
    return count


def main(arguments: list[str]) -> None:
    """Runs the pages, or all of them; `--k2` among the arguments: with the blocks that need k2."""
    pages = [argument for argument in arguments if argument != "--k2"]
    chosen = [Path(page) for page in pages] or [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))]
    total = 0
    for page in chosen:
        start = time.perf_counter()
        count = _run(page, with_k2="--k2" in arguments)
        total += count
        print(f"{page.name}: {count} examples, {time.perf_counter() - start:.1f} s")
    if total == 0:
        sys.exit("no examples found")


if __name__ == "__main__":
    main(sys.argv[1:])
