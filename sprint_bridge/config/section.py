"""Reading a configuration: every key known, every value of its type, errors that name the key."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from seqtrain.errors import ConfigError

__all__ = ["Section", "plain_path", "plain_paths"]

T = TypeVar("T")


class Section:
    """A mapping of a configuration and where it stands; values are taken out one by one.

    Args:
        values: the mapping, as JSON or YAML give it.
        name: dotted name of the section, "" for the whole.
        folder: what relative paths start from.

    Raises:
        ConfigError: it isn't a mapping with strings as keys.
    """

    def __init__(self, values: object, *, name: str, folder: Path) -> None:
        if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
            raise ConfigError(
                f"{name or 'the configuration'} must be a mapping, found {values!r:.80}", key=name
            )
        self._values = dict(values)
        self._known: list[str] = []
        self._name = name
        self._folder = folder

    def key(self, key: str) -> str:
        """The dotted name of a key."""
        return f"{self._name}.{key}" if self._name else key

    @property
    def folder(self) -> Path:
        """What relative paths start from."""
        return self._folder

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def has(self, key: str) -> bool:
        """Whether there is a value; the key counts as known."""
        self._known.append(key)
        return key in self

    def text(self, key: str, default: str | None = None) -> str:
        """A string that isn't empty."""
        value = self._take(key, default)
        if not isinstance(value, str) or not value:
            raise self._error(key, "a string", value)
        return value

    def optional_text(self, key: str) -> str | None:
        """A string that isn't empty, or None where there is none."""
        return self.text(key) if self.has(key) else None

    def path(self, key: str) -> Path:
        """A path; a relative one starts from the folder of the configuration."""
        return self._folder / self.text(key)

    def optional_path(self, key: str) -> Path | None:
        """A path, or None where there is none."""
        return self.path(key) if self.has(key) else None

    def paths(self, key: str) -> tuple[Path, ...]:
        """One path or a list of them."""
        value = self._take(key, None)
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
            raise self._error(key, "a path or a list of paths", value)
        return tuple(self._folder / name for name in names)

    def optional_paths(self, key: str) -> tuple[Path, ...]:
        """One path or a list of them, () where there is none."""
        return self.paths(key) if self.has(key) else ()

    def choice(self, key: str, default: str, values: Sequence[str]) -> str:
        """One of `values`."""
        value = self.text(key, default)
        if value not in values:
            raise self._error(key, f"one of {', '.join(values)}", value)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings, () where there is none."""
        value = self._take(key, [])
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise self._error(key, "a list of strings", value)
        return tuple(value)

    def texts_by_name(self, key: str) -> dict[str, str]:
        """A mapping of strings to strings, empty where there is none."""
        value = self._take(key, {})
        if not isinstance(value, Mapping):
            raise self._error(key, "a mapping of strings", value)
        for name, text in value.items():
            if not isinstance(name, str) or not isinstance(text, str):
                raise self._error(
                    f"{key}.{name}", "a string (in quotes, if it looks like anything else)", text
                )
        return dict(value)

    def seconds(self, key: str, default: float) -> float:
        """A finite time above zero."""
        value = self.number(key, default)
        if not 0.0 < value < math.inf:
            raise self._error(key, "a positive number of seconds", value)
        return value

    def build(self, make: Callable[[], T]) -> T:
        """What `make` returns; a ConfigError of its own about one of the section's keys gets the section's name."""
        try:
            return make()
        except ConfigError as error:
            if error.key.partition(".")[0] in self._known and not error.key.startswith(f"{self._name}."):
                raise ConfigError(f"{self._name}: {error}", key=self.key(error.key)) from error
            raise

    def integer(self, key: str, default: int, *, least: int) -> int:
        """An integer of at least `least`."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self._error(key, f"an integer of at least {least}", value)
        return value

    def number(
        self, key: str, default: float | None = None, *, least: float = -math.inf, most: float = math.inf
    ) -> float:
        """A number in [least, most]; "-inf" and "inf" stand for what JSON can't say."""
        value = self._take(key, default)
        if value in ("-inf", "inf"):
            value = float(str(value))
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            bounds = f" in [{least:g}, {most:g}]" if (least, most) != (-math.inf, math.inf) else ""
            raise self._error(key, f"a number{bounds}", value)
        return float(value)

    def optional_number(self, key: str, *, least: float, most: float) -> float | None:
        """A number in [least, most], or None where there is none."""
        return self.number(key, least=least, most=most) if self.has(key) else None

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self._error(key, "true or false", value)
        return value

    def section(self, key: str) -> Section:
        """A section inside this one; an absent one is empty."""
        return Section(self._take(key, {}), name=self.key(key), folder=self._folder)

    def optional_section(self, key: str) -> Section | None:
        """A section inside this one, or None where there is none."""
        return self.section(key) if self.has(key) else None

    def finish(self) -> None:
        """Raises ConfigError for a key that nobody asked for."""
        for key in self._values:
            if key not in self._known:
                known = ", ".join(self._known)
                raise ConfigError(f"{self.key(key)} is unknown; known here are: {known}", key=self.key(key))

    def _take(self, key: str, default: object) -> object:
        self._known.append(key)
        value = self._values.get(key)
        return default if value is None else value

    def _error(self, key: str, wanted: str, value: object) -> ConfigError:
        found = "nothing" if value is None else f"{value!r:.80}"
        return ConfigError(f"{self.key(key)} must be {wanted}, found {found}", key=self.key(key))


def plain_path(path: Path | None) -> str | None:
    """A path as a configuration has it that is read somewhere else."""
    return None if path is None else str(path.absolute())


def plain_paths(paths: Sequence[Path]) -> list[str]:
    """Paths as a configuration has them that is read somewhere else."""
    return [str(path.absolute()) for path in paths]
