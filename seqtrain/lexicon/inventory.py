"""The label inventory: what each column of the scores stands for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from seqtrain.errors import ArgumentError
from seqtrain.lexicon.digest import content_digest

__all__ = ["LabelInventory"]


@dataclass(frozen=True)
class LabelInventory:
    """The labels in column order; `silence` and `blank` are columns, or None where there is no such label.

    Raises:
        ArgumentError: a label stands twice; `silence` or `blank` isn't a column.
    """

    labels: tuple[str, ...]
    silence: int | None = None
    blank: int | None = None

    def __post_init__(self) -> None:
        if len(self._columns) != len(self.labels):
            twice = next(label for column, label in enumerate(self.labels) if self._columns[label] != column)
            raise ArgumentError(f"label {twice!r} stands twice in the inventory", argument="labels")
        for name, column in (("silence", self.silence), ("blank", self.blank)):
            if column is not None and not 0 <= column < len(self.labels):
                raise ArgumentError(
                    f"{name} is column {column}, but there are {len(self.labels)} labels", argument=name
                )

    def __len__(self) -> int:
        return len(self.labels)

    def index(self, label: str) -> int:
        """The column of a label.

        Raises:
            ArgumentError: there is no such label.
        """
        column = self._columns.get(label)
        if column is None:
            raise ArgumentError(f"no label {label!r} among the {len(self.labels)} labels", argument="label")
        return column

    @cached_property
    def etag(self) -> str:
        """SHA-256 of labels, silence and blank, 64 hex digits: equal for equal inventories, on every
        machine.
        """
        return content_digest([self.labels, self.silence, self.blank])

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {label: column for column, label in enumerate(self.labels)}
