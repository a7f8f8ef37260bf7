"""RASR's configuration files: sections, wildcards, references, includes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from seqtrain.errors import ConfigError

__all__ = ["Configuration"]

_REFERENCE = re.compile(r"\$\(([^()$]*)\)")
_COMMENT = re.compile(r"(?:^|(?<=\s))#.*")
# What a reference stands for that neither the file nor the caller defines.
_DEFAULT_VARIABLES = {"SETUP": "."}
_TRUE = frozenset({"yes", "true", "on", "1"})
_FALSE = frozenset({"no", "false", "off", "0"})


@dataclass(frozen=True)
class _Resource:
    """One line of a file: a pattern of names, in which `*` stands for any number of them, and a value."""

    pattern: tuple[str, ...]
    value: str
    origin: str

    @property
    def specificity(self) -> int:
        return sum(name != "*" for name in self.pattern)


class Configuration:
    """The parameters of one place in a program, such as `neural-network-trainer.corpus`.

    A file has lines `name = value`, under a section `[a.b]` or not; the full name of a parameter is the section's and
    its own, joined by dots. `*` stands for any number of names. `#` at the beginning of a line or behind a blank begins
    a comment. `include FILE` reads another file, relative to the one that includes it. `$(name)` in a value is the
    value of another parameter, looked up beside the one that is asked for, then further out; `$(SETUP)` is the file's
    own folder where nothing defines it. Of the lines that match a parameter counts the most specific one, which has the
    most names that aren't `*`; among equals the last.

    What is missing has a default; keys that nobody asks for are ignored, as RASR does.

    Args:
        path: the file.
        variables: values of references, over those of the file.

    Raises:
        ConfigError: the file can't be read, includes itself, or a line is malformed; names file and line.
    """

    def __init__(self, path: str | Path, *, variables: Mapping[str, str] | None = None) -> None:
        self.path = Path(path)
        self._resources: list[_Resource] = []
        self._variables = dict(variables or {})
        self._place: tuple[str, ...] = ()
        self._read(self.path, including=())
        # Lookups may then take the last match: least specific first, and later lines behind earlier ones.
        self._resources.sort(key=lambda resource: resource.specificity)

    def select(self, place: str) -> Configuration:
        """The parameters of a place below this one, a dotted name."""
        selected = Configuration.__new__(Configuration)
        selected.path = self.path
        selected._resources = self._resources
        selected._variables = self._variables
        selected._place = (*self._place, *place.split("."))
        return selected

    def name(self, parameter: str) -> str:
        """The full name of a parameter, for messages."""
        return ".".join((*self._place, parameter))

    def get(self, parameter: str) -> str | None:
        """The value of a parameter with its references filled in, or None; an empty one counts as None.

        Raises:
            ConfigError: a reference has no value, or refers to itself.
        """
        names = (*self._place, *parameter.split("."))
        found = self._find(names)
        return None if found is None else self._filled(found, names, ()) or None

    def text(self, parameter: str, default: str | None = None) -> str:
        """The value of a parameter.

        Raises:
            ConfigError: it is missing, and there is no default.
        """
        value = self.get(parameter)
        if value is not None:
            return value
        if default is None:
            raise ConfigError(f"{self.path} has no value of {self.name(parameter)}", key=self.name(parameter))
        return default

    def choice(self, parameter: str, choices: tuple[str, ...], default: str | None = None) -> str:
        """The value of a parameter, one of `choices`.

        Raises:
            ConfigError: it is missing and there is no default, or it is none of them; names them all.
        """
        value = self.text(parameter, default)
        if value not in choices:
            raise self.error(parameter, f"is {value!r}; it must be one of {', '.join(choices)}")
        return value

    def flag(self, parameter: str, default: bool) -> bool:
        """A parameter that is yes or no.

        Raises:
            ConfigError: it is neither.
        """
        value = self.get(parameter)
        if value is None:
            return default
        if value.lower() not in _TRUE | _FALSE:
            raise self.error(parameter, f"is {value!r}; it must be yes or no")
        return value.lower() in _TRUE

    def integer(self, parameter: str, default: int, *, least: int, most: int | None = None) -> int:
        """A parameter that is a whole number.

        Raises:
            ConfigError: it isn't one, or it lies outside `least` … `most`.
        """
        value = self.get(parameter)
        number = default
        if value is not None:
            if not re.fullmatch(r"[+-]?[0-9]{1,18}", value):
                raise self.error(parameter, f"is {value!r}; it must be a whole number")
            number = int(value)
        if number < least or (most is not None and number > most):
            allowed = f"at least {least}" if most is None else f"in {least}…{most}"
            raise self.error(parameter, f"is {number}; it must be {allowed}")
        return number

    def number(self, parameter: str, default: float) -> float:
        """A parameter that is a number; `infinity` is one.

        Raises:
            ConfigError: it isn't a number, or NaN.
        """
        value = self.get(parameter)
        if value is None:
            return default
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if math.isnan(number):
            raise self.error(parameter, f"is {value!r}; it must be a number or infinity")
        return number

    def file(self, parameter: str) -> Path:
        """A parameter that names a file; a relative one is taken from the configuration's own folder.

        Raises:
            ConfigError: it is missing.
        """
        return self.path.parent / self.text(parameter)

    def error(self, parameter: str, message: str) -> ConfigError:
        """The error about a parameter."""
        return ConfigError(f"{self.path}: {self.name(parameter)} {message}", key=self.name(parameter))

    def _find(self, names: tuple[str, ...]) -> _Resource | None:
        for resource in reversed(self._resources):
            if _matches(resource.pattern, names):
                return resource
        return None

    def _filled(
        self, resource: _Resource, names: tuple[str, ...], asking: tuple[tuple[str, ...], ...]
    ) -> str:
        """The value of a resource, found for the parameter `names`, with its references filled in."""
        if names in asking:
            chain = " → ".join(".".join(step) for step in (*asking, names))
            raise ConfigError(f"{resource.origin}: a reference to itself: {chain}", key=".".join(names))

        def value(match: re.Match[str]) -> str:
            name = match.group(1).strip()
            if name in self._variables:
                return self._variables[name]
            for depth in range(len(names) - 1, -1, -1):
                referred = (*names[:depth], *name.split("."))
                found = self._find(referred)
                if found is not None:
                    return self._filled(found, referred, (*asking, names))
            if name in _DEFAULT_VARIABLES:
                return _DEFAULT_VARIABLES[name]
            raise ConfigError(
                f"{resource.origin}: $({name}) has no value; define it in the file, or pass it as a variable",
                key=name,
            )

        return _REFERENCE.sub(value, resource.value)

    def _read(self, path: Path, *, including: tuple[Path, ...]) -> None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"configuration {path} can't be read: {error}", key="") from error
        section: tuple[str, ...] = ()
        for number, line in enumerate(lines, start=1):
            content = _without_comment(line)
            origin = f"{path}, line {number}"
            if not content:
                continue
            if content.startswith("["):
                if not content.endswith("]"):
                    raise ConfigError(f"{origin}: a section must end in ], found {content!r}", key="")
                section = _names(content[1:-1])
            elif re.match(r"include\s+[^=\s]", content):
                self._include(path, content.split(maxsplit=1)[1], origin, (*including, path.resolve()))
            else:
                name, equals, value = content.partition("=")
                if not equals or not name.strip():
                    raise ConfigError(f"{origin}: expected `name = value`, found {content!r}", key="")
                self._resources.append(_Resource((*section, *_names(name)), value.strip(), origin))

    def _include(self, path: Path, file: str, origin: str, including: tuple[Path, ...]) -> None:
        included = path.parent / file
        if included.resolve() in including:
            raise ConfigError(f"{origin}: includes {file!r}, of which it is a part itself", key="")
        self._read(included, including=including)


def _without_comment(line: str) -> str:
    return _COMMENT.sub("", line).strip()


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.strip().split(".") if name.strip())


def _matches(pattern: tuple[str, ...], names: tuple[str, ...]) -> bool:
    """Whether the pattern stands for the names; `*` for any number of them."""
    if not pattern:
        return not names
    if pattern[0] == "*":
        return any(_matches(pattern[1:], names[skipped:]) for skipped in range(len(names) + 1))
    return bool(names) and pattern[0] == names[0] and _matches(pattern[1:], names[1:])
