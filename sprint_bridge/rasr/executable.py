"""How a Sprint or RASR executable is told which Python module controls it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from seqtrain.errors import ConfigError

__all__ = ["check_control_options", "control_arguments"]

_OURS = frozenset(("c2p_fd", "p2c_fd", "minPythonControlVersion"))


def check_control_options(options: Mapping[str, str]) -> None:
    """Raises ConfigError where options that the user adds can't be written, or are ours to set."""
    for key, value in options.items():
        if "," in key or ":" in key or "," in value:
            raise ConfigError(
                f"control_options.{key}: {value!r} may not hold a comma, and the name neither that nor a colon",
                key=f"control_options.{key}",
            )
        if key in _OURS:
            raise ConfigError(f"control_options.{key} is set by the server", key=f"control_options.{key}")


def control_arguments(
    *, module_path: Path, module: str, options: Mapping[str, str], segment_order: bool
) -> list[str]:
    """The arguments that come before those of the user.

    Args:
        module_path: folder that goes on the interpreter's module path.
        module: its name.
        options: handed on to the module, `key:value,key:value`.
        segment_order: whether the module also says in which order segments are gone through.
    """
    configuration = ",".join(f"{key}:{value}" for key, value in options.items())
    arguments = [
        "--*.python-control-enabled=true",
        f"--*.pymod-path={module_path}",
        f"--*.pymod-name={module}",
        f"--*.pymod-config={configuration}",
    ]
    if segment_order:
        arguments += [
            "--*.python-segment-order=true",
            f"--*.python-segment-order-pymod-path={module_path}",
            f"--*.python-segment-order-pymod-name={module}",
            f"--*.python-segment-order-config={configuration}",
            "--*.python-segment-order-allow-copy=false",
        ]
    return arguments
