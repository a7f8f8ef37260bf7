"""Settings from TOML files into dataclasses, refusing what they don't know."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from seqtrain.errors import ArgumentError, ConfigError, MissingDependencyError

__all__ = [
    "fingerprint",
    "from_mapping",
    "parse_assignment",
    "read_toml",
    "with_assignments",
    "with_settings",
]

T = TypeVar("T")


def read_toml(path: str | Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        ConfigError: the file is missing or isn't TOML.
        MissingDependencyError: Python is older than 3.11 and tomli isn't installed.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {path} can't be read: {error}", key="") from error
    return _parse_toml(text, str(path))


def parse_assignment(assignment: str) -> tuple[str, Any]:
    """`"ctc.steps=100"` as (`"ctc.steps"`, 100); the value is written as in TOML, quotes around words aside.

    Raises:
        ConfigError: there is no `=`, or the value isn't TOML.
    """
    key, equals, value = assignment.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key:
        raise ConfigError(f"{assignment!r} isn't of the form key=value", key=key)
    if (
        value
        and all(c.isalnum() or c in "_-./" for c in value)
        and value[0].isalpha()
        and value not in ("true", "false")
    ):
        return key, value
    return key, _parse_toml(f"value = {value}", f"the value of {key}")["value"]


def with_assignments(mapping: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy of `mapping` in which dotted keys have the assigned values (see `parse_assignment`)."""
    result = json.loads(json.dumps(mapping))
    for assignment in assignments:
        _assign(result, *parse_assignment(assignment))
    return typing.cast("dict[str, Any]", result)


def from_mapping(kind: type[T], mapping: Mapping[str, Any], *, prefix: str = "") -> T:
    """A dataclass from a table of values; tables in it become the dataclasses that its fields ask for.

    Fields may be bool, int, float, str, a union of these with None, tuples of one kind (`tuple[str, ...]`),
    and dataclasses. An int is taken for a float, nothing else is converted.

    Raises:
        ConfigError: a key is unknown or missing, a value has the wrong type, or the dataclass refuses it.
            `key` is the dotted name.
    """
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, kind)) if f.init}
    for key in mapping:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            meant = f"; did you mean {prefix}{near[0]}?" if near else f"; known are {', '.join(fields)}"
            raise ConfigError(f"unknown key {prefix}{key}{meant}", key=f"{prefix}{key}")
    values = {}
    for name, field in fields.items():
        key = f"{prefix}{name}"
        if name in mapping:
            values[name] = _convert(hints[name], mapping[name], key)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{key} is missing", key=key)
    try:
        return kind(**values)
    except ArgumentError as error:
        key = f"{prefix}{error.argument}" if error.argument in fields else prefix.rstrip(".")
        raise ConfigError(f"{key}: {error}", key=key) from error


def with_settings(config: T, settings: Mapping[str, Any]) -> T:
    """A copy of a configuration (a dataclass) in which dotted keys have other values.

    Raises:
        ConfigError: a key is unknown or a value wrong.
    """
    # JSON makes lists of tuples, which is how a configuration is written.
    table = json.loads(json.dumps(dataclasses.asdict(typing.cast(Any, config))))
    for key, value in settings.items():
        _assign(table, key, value)
    return from_mapping(type(config), table)


def fingerprint(*parts: Any) -> str:
    """16 hexadecimal digits that change whenever the settings (dataclasses, plain values) do."""
    # is_dataclass is also true of classes; parts are values.
    plain = [dataclasses.asdict(part) if dataclasses.is_dataclass(part) else part for part in parts]  # type: ignore[arg-type]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _assign(table: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{key}: {parent} isn't a table", key=key)
    table[last] = value


def _convert(kind: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key} must be a table, not {value!r}", key=key)
        return from_mapping(typing.cast("type[Any]", kind), value, prefix=f"{key}.")
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{key} must be a list, not {value!r}", key=key)
        return tuple(_convert(arguments[0], item, f"{key}[{i}]") for i, item in enumerate(value))
    if kind is dict or origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{key} must be a table, not {value!r}", key=key)
        return value
    choices = arguments if origin in (typing.Union, types.UnionType) else (kind,)
    for choice in choices:
        if choice is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if type(value) is choice:
            return value
    names = " or ".join(getattr(choice, "__name__", str(choice)) for choice in choices)
    raise ConfigError(f"{key} must be {names}, not {value!r}", key=key)


def _parse_toml(text: str, name: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise MissingDependencyError("tomli", extra="recipes") from error
    try:
        return typing.cast("dict[str, Any]", tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name} isn't TOML: {error}", key="") from error
