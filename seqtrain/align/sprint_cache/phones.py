"""The phones of an alignment by the names of its allophones, where nothing is known about the words."""

from __future__ import annotations

import numpy as np

from seqtrain.align.segments import AlignedUtterance, segments
from seqtrain.align.sprint_cache.alignment import SprintAlignment
from seqtrain.align.sprint_cache.allophones import Allophones, split_id
from seqtrain.align.sprint_cache.archive import archive_error
from seqtrain.align.sprint_cache.labels import frame_labels, states_of
from seqtrain.errors import ArgumentError

__all__ = ["align_phones"]


def align_phones(
    alignment: SprintAlignment,
    allophones: Allophones | None = None,
    *,
    name: str,
    frame_shift: float,
    frame_offset: float = 0.0,
    path: str | None = None,
) -> AlignedUtterance:
    """The phones in time, and no words.

    A phone begins where the allophone changes or its HMM state goes back. Said twice in a row, one that has one state
    looks like one. Silence is a phone like others here.

    Args:
        alignment: of allophone states, one a frame.
        allophones: the list that the ids count; None: the alignment carries their names.
        name: of the utterance, and of the entry in errors.
        frame_shift, frame_offset: see `segments`.
        path: of the archive, for errors.

    Raises:
        DataError: it is of emissions or weighted, a frame has no label or several, an id isn't in the list.
        ArgumentError: `allophones` is needed and missing.
    """
    if alignment.kind != "allophone-state":
        raise archive_error(path, "has emissions, which don't say to which phones they belong", entry=name)
    state_of = states_of(alignment, allophones)
    labels = frame_labels(alignment, lambda label: label, path=path, name=name).tolist()
    try:
        places = [split_id(label) for label in labels]
        begins = [
            frame for frame in range(len(labels)) if frame == 0 or _begins(*places[frame - 1 : frame + 1])
        ]
        symbols = [state_of(labels[frame]).allophone.phone for frame in begins]
    except ArgumentError as error:
        raise archive_error(path, str(error), entry=name) from error
    units = np.searchsorted(begins, np.arange(len(labels)), side="right") - 1
    phones = segments(units, symbols, frame_shift=frame_shift, frame_offset=frame_offset)
    return AlignedUtterance(name, len(labels) * frame_shift, (), phones)


def _begins(before: tuple[int, int], here: tuple[int, int]) -> bool:
    """Whether a frame's allophone and HMM state begin another phone than the frame's before."""
    return here[0] != before[0] or here[1] < before[1]
