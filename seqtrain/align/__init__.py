"""Best paths as words and phones in time: segments, and their export as CTM, TextGrid and JSON lines."""

from seqtrain.align.boundaries import BoundaryAgreement, compare_boundaries
from seqtrain.align.ctm import format_ctm, write_ctm
from seqtrain.align.jsonl import format_jsonl, write_jsonl
from seqtrain.align.segments import AlignedUtterance, Segment, ctc_units, segments
from seqtrain.align.textgrid import format_textgrid, write_textgrids
from seqtrain.align.words import Transcribed, Transcript, align_words, read_states

__all__ = [
    "AlignedUtterance",
    "BoundaryAgreement",
    "Segment",
    "Transcribed",
    "Transcript",
    "align_words",
    "compare_boundaries",
    "ctc_units",
    "format_ctm",
    "format_jsonl",
    "format_textgrid",
    "read_states",
    "segments",
    "write_ctm",
    "write_jsonl",
    "write_textgrids",
]
