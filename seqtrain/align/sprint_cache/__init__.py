"""Alignment caches of Sprint and RASR: reading and writing archives, alignments, allophones, and labels of frames."""

from seqtrain.align.sprint_cache.alignment import (
    SprintAlignment,
    decode_alignment,
    encode_alignment,
    read_alignment,
    write_alignments,
)
from seqtrain.align.sprint_cache.allophones import (
    DISAMBIGUATOR,
    Allophone,
    Allophones,
    AllophoneState,
    join_id,
    split_id,
)
from seqtrain.align.sprint_cache.archive import Archive, SpArchive
from seqtrain.align.sprint_cache.labels import (
    columns_of,
    frame_labels,
    from_frame_labels,
    from_soft_labels,
    soft_labels,
)
from seqtrain.align.sprint_cache.paths import CachedScores, align_for_cache
from seqtrain.align.sprint_cache.phones import align_phones
from seqtrain.align.sprint_cache.sources import Bundle, FolderArchive, open_archive
from seqtrain.align.sprint_cache.writer import SpArchiveWriter

__all__ = [
    "DISAMBIGUATOR",
    "Allophone",
    "AllophoneState",
    "Allophones",
    "Archive",
    "Bundle",
    "CachedScores",
    "FolderArchive",
    "SpArchive",
    "SpArchiveWriter",
    "SprintAlignment",
    "align_for_cache",
    "align_phones",
    "columns_of",
    "decode_alignment",
    "encode_alignment",
    "frame_labels",
    "from_frame_labels",
    "from_soft_labels",
    "join_id",
    "open_archive",
    "read_alignment",
    "soft_labels",
    "split_id",
    "write_alignments",
]
