"""`seqtrain align`: words and phones in time, from scores, a recipe's network or RASR's alignment cache."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqtrain.errors import ArgumentError, DataError, InfeasibleError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from seqtrain.align import AlignedUtterance, Transcript
    from seqtrain.align.sprint_cache import Allophones, Archive, SprintAlignment
    from seqtrain.lexicon import AutomatonBuilder
    from seqtrain.lexicon.topology import Topology

__all__ = ["add_parser", "run"]

_SOURCES = {".npz": "scores", ".toml": "recipe", ".cache": "sprint-cache", ".bundle": "sprint-cache"}
_FORMATS = ("ctm", "phones.ctm", "textgrid", "jsonl", "sprint-cache")
_UTTERANCES_AT_A_TIME = 16


def add_parser(subparsers: Any) -> None:
    """Adds the command to the subparsers of `seqtrain`."""
    parser = subparsers.add_parser(
        "align",
        help="forced alignment: words and phones in time, as CTM, TextGrid, JSON lines, RASR's cache",
        description="Aligns known texts. With scores from anywhere: an .npz with one array (frames, labels) of "
        "natural-log scores for each utterance, named like it; columns as in `AutomatonBuilder.inventory`. Or with the "
        "network of a recipe that has been trained: its configuration, .toml. Or takes the alignments that RASR has "
        "made, an archive or a bundle of them: words need --lexicon and --text, phones the names of the allophones.",
    )
    parser.add_argument(
        "source",
        type=Path,
        help="scores (.npz), a recipe's configuration (.toml), or RASR's alignments (.cache, .bundle, a folder)",
    )
    parser.add_argument(
        "--from",
        dest="origin",
        choices=tuple(dict.fromkeys(_SOURCES.values())),
        help="what the source is; default: as its name ends",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the alignments go")
    parser.add_argument(
        "--format",
        "--to",
        nargs="+",
        choices=_FORMATS,
        help="default: ctm textgrid; phones.ctm textgrid where no words are known",
    )
    parser.add_argument("--json", action="store_true", help="print what was written as one JSON object")

    scores = parser.add_argument_group("with scores or RASR's alignments")
    scores.add_argument(
        "--lexicon", type=Path, metavar="FILE", help="lines `word phoneme phoneme …`, or Bliss .xml[.gz]"
    )
    scores.add_argument(
        "--text", type=Path, metavar="FILE", help="lines `utterance word word …`, or .jsonl with id, text"
    )
    scores.add_argument(
        "--frame-shift", type=float, metavar="SECONDS", help="from one frame of the scores to the next"
    )
    scores.add_argument(
        "--frame-offset",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="where the first frame begins; default: 0",
    )
    scores.add_argument("--topology", choices=("hmm", "ctc"), default="hmm", help="default: hmm")
    scores.add_argument("--states-per-phone", type=int, default=1, metavar="N", help="default: 1")
    scores.add_argument("--phone-loop", type=float, metavar="P", help="loop probability of a phone's state")
    scores.add_argument("--silence-loop", type=float, metavar="P", help="loop probability of silence")
    scores.add_argument(
        "--silence",
        type=float,
        default=0.5,
        metavar="P",
        help="probability of silence between words; default: 0.5",
    )

    cache = parser.add_argument_group("RASR's alignments")
    cache.add_argument(
        "--allophones",
        type=Path,
        metavar="FILE",
        help="the list that RASR has stored (allophones.store-to-file): what the ids of allophone states count that "
        "are read, and written, too, instead of emissions, the columns of the scores",
    )
    cache.add_argument(
        "--recover",
        action="store_true",
        help="read what is whole of an archive whose table or end is missing",
    )

    recipe = parser.add_argument_group("with a recipe")
    recipe.add_argument(
        "--workdir", type=Path, help="the run's working folder (default: work/<name of the recipe>)"
    )
    recipe.add_argument("--stage", choices=("ctc", "hmm"), default="hmm", help="whose network; default: hmm")
    recipe.add_argument("--sets", nargs="+", metavar="NAME", help="held-out sets (default: all of them)")
    recipe.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as given to `seqtrain train`"
    )


def run(args: argparse.Namespace) -> int:
    """Aligns and writes what the arguments ask for; returns the exit status, 0.

    Raises:
        ArgumentError: an option is missing or isn't one for this source.
        DataError: a file is missing or broken, scores and texts don't hold the same utterances, or alignments don't
            fit lexicon and text.
        OutOfVocabularyError: the lexicon lacks a word. InfeasibleError: an utterance is too short for its text.
    """
    origin = args.origin if args.origin is not None else _origin(args.source)
    if origin == "recipe":
        if "sprint-cache" in (args.format or ()):
            raise ArgumentError(
                "a recipe's alignments aren't written as sprint-cache: align the scores of its network, an .npz",
                argument="format",
            )
        results = {name: _Result(found) for name, found in _from_recipe(args).items()}
    else:
        results = {"": _from_scores(args) if origin == "scores" else _from_cache(args)}
    written = [
        path
        for name, result in results.items()
        for path in _write(args.out / name, result, _formats(args, result))
    ]
    utterances = [utterance for result in results.values() for utterance in result.utterances]
    words = sum(len(utterance.words) for utterance in utterances)
    if args.json:
        print(
            json.dumps(
                {"utterances": len(utterances), "words": words, "files": [str(path) for path in written]},
                indent=2,
            )
        )
    else:
        print(f"{len(utterances)} utterances, {words} words: {args.out}")
    return 0


@dataclass(frozen=True)
class _Result:
    """What goes into the files.

    Attributes:
        utterances: the words and phones; phones alone where `words_known` isn't set.
        cached: the alignments for a cache, by utterance, or None where none is wanted.
    """

    utterances: Sequence[AlignedUtterance]
    words_known: bool = True
    cached: Mapping[str, SprintAlignment] | None = None


def _origin(source: Path) -> str:
    if source.is_dir():
        return "sprint-cache"
    if source.suffix not in _SOURCES:
        raise ArgumentError(
            f"{source} is neither scores (.npz) nor a recipe's configuration (.toml) nor RASR's alignments (.cache, "
            ".bundle, a folder); --from says which it is",
            argument="source",
        )
    return _SOURCES[source.suffix]


def _formats(args: argparse.Namespace, result: _Result) -> list[str]:
    if args.format is not None:
        return list(dict.fromkeys(args.format))
    return ["ctm" if result.words_known else "phones.ctm", "textgrid"]


def _from_scores(args: argparse.Namespace) -> _Result:
    _require(args, "lexicon", "text", "frame_shift", what="aligning scores")
    builder = _builder(args)
    return _align(args, builder, _read_scores(args.source, len(builder.inventory)))


def _from_cache(args: argparse.Namespace) -> _Result:
    from seqtrain.align.sprint_cache import Allophones, CachedScores, open_archive

    _require(args, "frame_shift", what="reading RASR's alignments")
    allophones = None if args.allophones is None else Allophones.read(args.allophones)
    with open_archive(args.source, recover=args.recover) as archive:
        if archive.damage is not None:
            print(f"seqtrain: {args.source}: left out: {archive.damage}", file=sys.stderr)
        if not archive.segments:
            raise DataError(f"{args.source} holds no alignment", path=str(args.source))
        if args.lexicon is None and args.text is None:
            return _phones_of_cache(args, archive, allophones)
        _require(args, "lexicon", "text", what="the words of RASR's alignments")
        builder = _builder(args)
        scores = CachedScores(archive, builder.inventory, allophones=allophones)
        try:
            result = _align(args, builder, scores)
        except InfeasibleError as error:
            first = error.utterances[0]
            raise DataError(
                f"archive {args.source}, entry {first.tag!r}: its {first.frames} frames are no path through the text's "
                "automaton: it was made with another lexicon, text or topology (see --states-per-phone, --silence)",
                path=str(args.source),
                utterance=first.tag,
            ) from error
    return replace(result, utterances=[_without_scores(utterance) for utterance in result.utterances])


def _phones_of_cache(args: argparse.Namespace, archive: Archive, allophones: Allophones | None) -> _Result:
    from seqtrain.align.sprint_cache import align_phones, read_alignment

    for name in args.format or ():
        if name in ("ctm", "sprint-cache"):
            raise ArgumentError(
                f"{name} needs the words: give --lexicon and --text, or ask for phones.ctm, textgrid, jsonl",
                argument="format",
            )
    return _Result(
        [
            align_phones(
                read_alignment(archive, name),
                allophones,
                name=name,
                frame_shift=args.frame_shift,
                frame_offset=args.frame_offset,
                path=str(archive.origin(name)),
            )
            for name in archive.segments
        ],
        words_known=False,
    )


def _without_scores(utterance: AlignedUtterance) -> AlignedUtterance:
    """A cache doesn't say how well its paths score."""
    words, phones = (
        tuple(replace(segment, score=None) for segment in segments)
        for segments in (utterance.words, utterance.phones)
    )
    return replace(utterance, words=words, phones=phones, score=None)


def _require(args: argparse.Namespace, *names: str, what: str) -> None:
    for name in names:
        if getattr(args, name) is None:
            raise ArgumentError(f"{what} needs --{name.replace('_', '-')}", argument=name)


def _builder(args: argparse.Namespace) -> AutomatonBuilder:
    from seqtrain.lexicon import AutomatonBuilder, read_lexicon

    return AutomatonBuilder(read_lexicon(args.lexicon), _topology(args))


def _align(
    args: argparse.Namespace, builder: AutomatonBuilder, scores: Mapping[str, NDArray[Any]]
) -> _Result:
    """Aligns all utterances with their texts, some at a time."""
    from seqtrain.align import align_words
    from seqtrain.align.sprint_cache import Allophones, align_for_cache
    from seqtrain.lexicon import read_transcripts

    texts = read_transcripts(args.text)
    missing = [tag for tag in scores if tag not in texts]
    if missing:
        raise DataError(
            f"{args.text} lacks {len(missing)} of the {len(scores)} utterances in {args.source}, "
            f"the first is {missing[0]!r}",
            path=str(args.text),
            utterance=missing[0],
        )
    aligned: list[AlignedUtterance] = []
    cached: dict[str, SprintAlignment] | None = {} if "sprint-cache" in (args.format or ()) else None
    allophones = None if cached is None or args.allophones is None else Allophones.read(args.allophones)
    for padded, lengths, transcripts in _batches(scores, texts, args.frame_shift):
        aligned += align_words(
            padded,
            lengths,
            transcripts,
            builder,
            frame_shift=args.frame_shift,
            frame_offset=args.frame_offset,
        )
        if cached is not None:
            found = align_for_cache(padded, lengths, transcripts, builder, allophones=allophones)
            cached.update(zip((transcript.id for transcript in transcripts), found, strict=True))
    return _Result(aligned, cached=cached)


def _batches(
    scores: Mapping[str, NDArray[Any]], texts: Mapping[str, str], frame_shift: float
) -> Iterator[tuple[Tensor, Tensor, list[Transcript]]]:
    """Padded scores, their lengths and texts."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from seqtrain.align import Transcript

    tags = list(scores)
    for first in range(0, len(tags), _UTTERANCES_AT_A_TIME):
        part = {tag: scores[tag] for tag in tags[first : first + _UTTERANCES_AT_A_TIME]}
        yield (
            pad_sequence([torch.from_numpy(table) for table in part.values()], batch_first=True),
            torch.tensor([len(table) for table in part.values()]),
            [Transcript(tag, texts[tag], len(table) * frame_shift) for tag, table in part.items()],
        )


def _topology(args: argparse.Namespace) -> Topology:
    from seqtrain.fsa import Transitions
    from seqtrain.lexicon import CtcTopology, HmmTopology

    if args.topology == "ctc":
        return CtcTopology()
    phone, silence = (
        Transitions() if loop is None else Transitions.from_probabilities(loop=loop)
        for loop in (args.phone_loop, args.silence_loop)
    )
    return HmmTopology(
        states_per_phone=args.states_per_phone, phone=phone, silence=silence, silence_probability=args.silence
    )


def _read_scores(path: Path, num_labels: int) -> Mapping[str, NDArray[Any]]:
    """The scores (T, V) of each utterance, float32 or float64.

    Raises:
        DataError: the file can't be read, or an array hasn't `num_labels` columns of floating-point numbers.
    """
    import zipfile

    import numpy as np

    try:
        # Opened and closed here: numpy leaves a broken archive open.
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(
                    f"scores {path} can't be read: it is a single array, not an .npz", path=str(path)
                )
            scores = {tag: file[tag] for tag in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"scores {path} can't be read: {error}", path=str(path)) from error
    if not scores:
        raise DataError(f"{path} holds no scores", path=str(path))
    for tag, array in scores.items():
        if array.ndim != 2 or array.shape[1] != num_labels or array.dtype.kind != "f":
            raise DataError(
                f"{path}: utterance {tag!r} has {array.dtype} {array.shape}; it must be floating-point (frames, "
                f"{num_labels}): the lexicon and topology have {num_labels} labels",
                path=str(path),
                utterance=tag,
            )
    kind = np.result_type(*scores.values(), np.float32)
    return {tag: np.ascontiguousarray(array, dtype=kind) for tag, array in scores.items()}


def _from_recipe(args: argparse.Namespace) -> dict[str, list[AlignedUtterance]]:
    from seqtrain.training.config import read_config
    from seqtrain.training.entry import load_prepare
    from seqtrain.training.progress import Console
    from seqtrain.training.run import RecipeRun

    config = read_config(args.source, args.set)
    recipe = RecipeRun(
        config,
        args.workdir if args.workdir is not None else Path("work") / config.name,
        prepare=load_prepare(config.corpus, config=args.source),
        console=Console(sys.stderr),
        resume=True,
    )
    known = recipe.corpus.heldout
    for name in args.sets or ():
        if name not in known:
            raise ArgumentError(
                f"there is no held-out set {name!r}; known are {', '.join(known)}", argument="sets"
            )
    return {name: list(recipe.aligned(args.stage, name).values()) for name in args.sets or known}


def _write(directory: Path, result: _Result, formats: Sequence[str]) -> list[Path]:
    from seqtrain.align import write_ctm, write_jsonl, write_textgrids
    from seqtrain.align.sprint_cache import write_alignments

    utterances = result.utterances
    written = []
    for name in formats:
        if name == "ctm":
            write_ctm(directory / "words.ctm", utterances)
            written.append(directory / "words.ctm")
        elif name == "phones.ctm":
            write_ctm(directory / "phones.ctm", utterances, tier="phones")
            written.append(directory / "phones.ctm")
        elif name == "jsonl":
            write_jsonl(directory / "alignments.jsonl", utterances)
            written.append(directory / "alignments.jsonl")
        elif name == "sprint-cache":
            write_alignments(directory / "alignments.cache", result.cached or {})
            written.append(directory / "alignments.cache")
        else:
            written += write_textgrids(directory / "textgrid", utterances)
    return written
