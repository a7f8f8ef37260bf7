"""Elements of HTML and SVG as text, escaped."""

from __future__ import annotations

import html

__all__ = ["element", "number", "text"]


def text(content: str) -> str:
    """Escaped text."""
    return html.escape(content, quote=True)


def number(value: float) -> str:
    """A coordinate: two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def element(name: str, content: str = "", /, **attributes: str | float) -> str:
    """`<name …>content</name>`; `content` is markup already.

    Underscores in attribute names become hyphens, one at the end is dropped (`class_`).
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value) if isinstance(value, str) else number(value)}"'
        for key, value in attributes.items()
    )
    return f"<{name}{written}>{content}</{name}>"
