"""Options of RETURNN's losses: what there is, what it means here, and the check of what a config says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seqtrain.errors import ConfigError

__all__ = ["COMMON", "REQUIRED", "Option", "checked_options"]

REQUIRED = object()


@dataclass(frozen=True)
class Option:
    """One key of `loss_opts`.

    Attributes:
        name: the key.
        default: its value where it isn't given; `REQUIRED` where it must be.
        native: what takes its place in a native criterion.
        note: what differs, or needs saying.
    """

    name: str
    default: Any
    native: str
    note: str = ""


COMMON = (
    Option(
        "use_flatten_frames", True, "`Packed` or padded scores", "changes numbers of `reduce=False` alone"
    ),
    Option("use_normalized_loss", False, "`reduction=`", "multiplies the objective by the norm factor"),
    Option("custom_norm_factor", None, "divide by hand", "a float, or a function of the batch"),
    Option("custom_inv_norm_factor", None, "divide by hand", "name of a layer: 1 / the sum of its output"),
    Option("scale", 1.0, "multiply by hand", "of the objective alone; 0: no objective at all"),
    Option("_check_output_before_softmax", None, "`input=`", "whether a softmax layer's logits are used"),
)
"""Options that every class has."""


def checked_options(
    name: str, options: Mapping[str, Any], known: tuple[Option, ...], *, key: str = "loss_opts"
) -> dict[str, Any]:
    """The options of the class `name`, completed by their defaults.

    Raises:
        ConfigError: an unknown option (lists the valid ones), or a required one that is missing.
    """
    if not isinstance(options, Mapping):
        raise ConfigError(f"{key} must be a dict, got {options!r}", key=key)
    valid = {option.name: option for option in (*known, *COMMON)}
    for given in options:
        if given not in valid:
            raise ConfigError(
                f"{key} of loss {name!r} has no option {given!r}; valid are: {', '.join(sorted(valid))}",
                key=f"{key}.{given}",
            )
    for option in valid.values():
        if option.default is REQUIRED and option.name not in options:
            raise ConfigError(
                f"{key} of loss {name!r} lacks {option.name!r}, which is required", key=f"{key}.{option.name}"
            )
    return {option.name: options.get(option.name, option.default) for option in valid.values()}
