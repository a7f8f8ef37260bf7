"""How the aligners read some utterances, for the report: words, phones, each label's probability in each frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seqtrain.data import Dataset, Utterance
from seqtrain.functional import posteriors
from seqtrain.lexicon import AutomatonBuilder
from seqtrain.training.acoustics import ScoredSet
from seqtrain.training.criterion import AutomatonSource
from seqtrain.training.forced_alignment import force_align
from seqtrain.training.report import AlignmentTrack, AlignmentView

__all__ = ["alignment_views", "of_middling_length", "stage_tracks"]


def stage_tracks(
    scored: ScoredSet,
    *,
    name: str,
    builder: AutomatonBuilder,
    source: AutomatonSource | None,
    utterances: Sequence[Utterance],
    frame_shift: float,
    frame_offset: float = 0.0,
) -> dict[str, AlignmentTrack]:
    """A track called `name` for each utterance of `scored`; arguments as those of `force_align`.

    The occupancies are the labels' posteriors given the transcript: summed over all paths, not the best one's.
    """
    texts = {u.id: u.text for u in utterances}
    aligned = force_align(
        scored, utterances, builder=builder, source=source, frame_shift=frame_shift, frame_offset=frame_offset
    )
    tracks = {}
    for batch in scored.batches():
        automata = (
            builder.build_batch([texts[tag] for tag in batch.tags], tags=batch.tags)
            if source is None
            else source.automata(batch.tags)
        )
        occupancies = posteriors(batch.scores, batch.lengths, automata)
        for row, tag in enumerate(batch.tags):
            tracks[tag] = AlignmentTrack(
                name,
                words=aligned[tag].words,
                phones=aligned[tag].phones,
                occupancies=occupancies[row, : int(batch.lengths[row])],
                labels=builder.inventory.labels,
                frame_shift=frame_shift,
                frame_offset=frame_offset,
            )
    return tracks


def of_middling_length(utterances: Sequence[Utterance], count: int) -> list[Utterance]:
    """The `count` utterances about the median of the durations, the shortest first."""
    by_length = sorted(utterances, key=lambda utterance: (utterance.duration, utterance.id))
    count = min(count, len(by_length))
    first = (len(by_length) - count) // 2
    return by_length[first : first + count]


def alignment_views(
    dataset: Dataset, aligners: Sequence[Mapping[str, AlignmentTrack]], *, frame_shift: float
) -> list[AlignmentView]:
    """Each utterance's features above the tracks that the aligners have of it; `frame_shift` is the features'."""
    return [
        AlignmentView(
            id=utterance.id,
            text=utterance.text,
            duration=utterance.duration,
            log_mel=features,
            frame_shift=frame_shift,
            tracks=tuple(tracks[utterance.id] for tracks in aligners if utterance.id in tracks),
        )
        for utterance, features in zip(dataset.utterances, dataset.features, strict=True)
    ]
