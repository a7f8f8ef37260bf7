"""Label inventories."""

from __future__ import annotations

import hashlib

import pytest

from seqtrain.errors import ArgumentError
from seqtrain.lexicon import LabelInventory


def test_labels_and_columns() -> None:
    inventory = LabelInventory(("SIL", "A.0", "A.1"), silence=0)
    assert len(inventory) == 3
    assert inventory.index("A.1") == 2
    with pytest.raises(ArgumentError, match="no label 'B' among the 3 labels"):
        inventory.index("B")


def test_the_etag_is_a_digest_of_all_of_it() -> None:
    # Written out: an etag is compared between machines and versions.
    content = b'[["a","b"],null,0]'
    assert LabelInventory(("a", "b"), blank=0).etag == hashlib.sha256(content).hexdigest()
    inventories = [
        LabelInventory(("a", "b")),
        LabelInventory(("b", "a")),
        LabelInventory(("a", "b"), silence=0),
        LabelInventory(("a", "b"), blank=0),
        LabelInventory(("a", "b"), blank=1),
    ]
    assert len({inventory.etag for inventory in inventories}) == len(inventories)


def test_malformed_inventories() -> None:
    with pytest.raises(ArgumentError, match="label 'a' stands twice"):
        LabelInventory(("a", "b", "a"))
    with pytest.raises(ArgumentError, match="silence is column 2, but there are 2 labels"):
        LabelInventory(("a", "b"), silence=2)
    with pytest.raises(ArgumentError, match="blank is column -1"):
        LabelInventory(("a", "b"), blank=-1)
