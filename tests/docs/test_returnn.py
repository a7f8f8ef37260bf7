"""The generated page about RETURNN's losses."""

from __future__ import annotations

from docs.returnn import PAGE, page
from seqtrain.compat.returnn import CLASSES


def test_the_page_is_what_the_program_writes() -> None:
    assert PAGE.read_text() == page(), "run: python -m docs.returnn"


def test_the_page_has_all_classes_and_options() -> None:
    text = page()
    for name, kind in CLASSES.items():
        assert f"## `{name}`" in text
        for option in kind.options:
            assert f"| `{option.name}` |" in text
