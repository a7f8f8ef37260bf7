"""Files of alignments."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from seqtrain.errors import DataError
from sprint_bridge.alignment_file import read_alignments


def test_both_kinds(tmp_path: Path) -> None:
    wanted = {"rec/1": [0, 0, 3], "rec/2": []}
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"segment": name, "labels": labels}) for name, labels in wanted.items())
    )
    np.savez(
        tmp_path / "a.npz", **{name: np.array(labels, dtype=np.uint8) for name, labels in wanted.items()}
    )
    for name in ("a.jsonl", "a.npz"):
        found = read_alignments(tmp_path / name, num_labels=4)
        assert {segment: labels.tolist() for segment, labels in found.items()} == wanted
        assert all(labels.dtype == np.int32 for labels in found.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"segment": "a", "labels": [4]}', "segment 'a': labels go from 4 to 4, and there are 4"),
        ('{"segment": "a", "labels": [-1, 2]}', "labels go from -1 to 2"),
        ('{"segment": "a", "labels": [1.0]}', "segment 'a': labels must be integers"),
        ('{"segment": "a", "labels": [true]}', "segment 'a': labels must be integers"),
        ('{"segment": "a"}', "segment 'a': needs the list 'labels'"),
        ('{"labels": []}', "line 1: needs the string 'segment'"),
        (
            '\n{"segment": "a", "labels": []}\n{"segment": "a", "labels": []}',
            "line 3: segment 'a' stands twice",
        ),
        ("{", "line 1: isn't JSON"),
    ],
)
def test_malformed_lines(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_alignments(path, num_labels=4)
    assert caught.value.path == str(path)


def test_malformed_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros((2, 2), dtype=np.int32))
    with pytest.raises(DataError, match="segment 'a': expected one integer a frame"):
        read_alignments(path, num_labels=4)
    np.savez(path, a=np.zeros(2))
    with pytest.raises(DataError, match="found an array of float64"):
        read_alignments(path, num_labels=4)
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="can't be read: Object arrays cannot be loaded"):
        read_alignments(path, num_labels=4)
    path.write_bytes(b"PK no zip")
    with pytest.raises(DataError, match="can't be read"):
        read_alignments(path, num_labels=4)
    with pytest.raises(DataError, match=r"must end in \.jsonl or \.npz"):
        read_alignments(tmp_path / "a.txt", num_labels=4)
