"""Checkpoints: everything a run needs to go on as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqtrain.errors import CheckpointError, MissingDependencyError
from seqtrain.files import replace_file

__all__ = ["Checkpoint", "Position", "load_checkpoint", "restore_optimizer", "save_checkpoint"]

_FORMAT = "seqtrain-checkpoint-1"


@dataclass(frozen=True)
class Position:
    """Where a run stands: `step` steps are done, the next batch is number `batch` of epoch `epoch`."""

    step: int = 0
    epoch: int = 0
    batch: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """A stage's state as tensors by name (`model.…`, `optimizer.…`, `criterion.…`, `random`) and its
    position.

    `run` identifies the settings that the state belongs to; `values` holds plain numbers (seconds used so
    far).
    """

    position: Position
    run: str
    tensors: Mapping[str, torch.Tensor]
    values: Mapping[str, float] = field(default_factory=dict)

    def group(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors whose name starts with `name.`, without that prefix."""
        return {
            key[len(name) + 1 :]: value for key, value in self.tensors.items() if key.startswith(f"{name}.")
        }


def save_checkpoint(
    path: str | Path,
    *,
    position: Position,
    run: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    criterion: Mapping[str, torch.Tensor] | None = None,
    values: Mapping[str, float] | None = None,
) -> None:
    """Writes a safetensors file atomically: tensors and a few numbers, nothing that would be executed on
    reading.

    The state of torch's global random numbers is part of it (dropout draws from there). Without an optimizer
    the file holds a finished model.
    """
    safetensors = _safetensors()
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    if optimizer is not None:
        for index, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer.{index}.{name}"] = value
        tensors["random"] = torch.get_rng_state()
    for name, value in (criterion or {}).items():
        tensors[f"criterion.{name}"] = value
    header = {
        "format": _FORMAT,
        "run": run,
        "position": json.dumps({"step": position.step, "epoch": position.epoch, "batch": position.batch}),
        "values": json.dumps(dict(values or {})),
    }
    # Copies, since tensors that share memory (tied weights) can't be stored as they are.
    content = safetensors.save(
        {name: value.detach().clone().contiguous() for name, value in tensors.items()}, header
    )
    replace_file(Path(path), content)


def load_checkpoint(path: str | Path, *, run: str | None = None) -> Checkpoint:
    """Reads a checkpoint.

    Args:
        path: the file.
        run: the identity that the checkpoint must have; None takes any.

    Raises:
        CheckpointError: the file is missing, truncated, not a checkpoint, or belongs to a run with other
            settings.
        MissingDependencyError: safetensors isn't installed.
    """
    safetensors = _safetensors()
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} doesn't exist", path=str(path))
    content = path.read_bytes()
    try:
        tensors = safetensors.load(content)
        header = _header(content)
        if header.get("format") != _FORMAT:
            raise CheckpointError(f"{path} isn't a checkpoint of seqtrain", path=str(path))
        position = Position(**json.loads(header["position"]))
        values = json.loads(header["values"])
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"checkpoint {path} is broken ({error}); delete it to start this stage anew",
            path=str(path),
        ) from error
    if run is not None and header["run"] != run:
        raise CheckpointError(
            f"checkpoint {path} belongs to a run with other settings or data (its identity is "
            f"{header['run']}, this run's is {run}); restore the settings, or delete the file to start this "
            "stage anew",
            path=str(path),
        )
    return Checkpoint(position=position, run=header["run"], tensors=tensors, values=values)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, torch.Tensor]) -> None:
    """Puts the tensors of `Checkpoint.group("optimizer")` back; settings (learning rate …) stay as they are
    now."""
    by_parameter: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in state.items():
        index, name = key.split(".", maxsplit=1)
        by_parameter.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": by_parameter, "param_groups": groups})


def _header(content: bytes) -> dict[str, Any]:
    """The metadata of a safetensors file, which its Python interface gives for files only, not for bytes."""
    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size]).get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise MissingDependencyError("safetensors", extra="recipes") from error

    class Interface:
        load = staticmethod(safetensors.torch.load)
        save = staticmethod(safetensors.torch.save)
        SafetensorError = safetensors.SafetensorError

    return Interface
