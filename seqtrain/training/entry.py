"""Finding the function that prepares a recipe's corpus."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

from seqtrain.data import Corpus
from seqtrain.errors import ConfigError
from seqtrain.training.progress import Console

__all__ = ["Prepare", "load_prepare"]

Prepare: TypeAlias = Callable[[Path, Mapping[str, Any], Console], Corpus]
"""Prepares a corpus in a folder, with the recipe's own options."""


def load_prepare(name: str, *, config: Path) -> Prepare:
    """The function `module:function` of the recipe that the file `config` belongs to.

    Recipes aren't installed. The module is looked for where the outermost package around the configuration
    lies, so that a recipe works from any working directory.

    Raises:
        ConfigError: there is no such module or function.
    """
    module_name, colon, function_name = name.partition(":")
    if not colon or not module_name or not function_name:
        raise ConfigError(f"corpus is {name!r}; it must be module:function", key="corpus")
    root = config.resolve().parent
    while (root / "__init__.py").exists():
        root = root.parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that the recipe itself imports and that isn't there is another matter.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"corpus is {name!r}, but there is no module {error.name} in {root}", key="corpus"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(
            f"corpus is {name!r}, but {module_name} has no function {function_name}", key="corpus"
        )
    return cast(Prepare, function)
