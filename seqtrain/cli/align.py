"""`seqtrain align`: words and phones in time, from scores or from a recipe's network."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqtrain.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from seqtrain.align import AlignedUtterance
    from seqtrain.lexicon.topology import Topology

__all__ = ["add_parser", "run"]

_FORMATS = ("ctm", "phones.ctm", "textgrid", "jsonl")
_UTTERANCES_AT_A_TIME = 16


def add_parser(subparsers: Any) -> None:
    """Adds the command to the subparsers of `seqtrain`."""
    parser = subparsers.add_parser(
        "align",
        help="forced alignment: words and phones in time, as CTM, TextGrid, JSON lines",
        description="Aligns known texts. Either with scores from anywhere: an .npz with one array (frames, labels) of "
        "natural-log scores for each utterance, named like it; columns as in `AutomatonBuilder.inventory`. Or with the "
        "network of a recipe that has been trained: its configuration, .toml.",
    )
    parser.add_argument("source", type=Path, help="scores (.npz), or a recipe's configuration (.toml)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the alignments go")
    parser.add_argument(
        "--format", nargs="+", choices=_FORMATS, default=["ctm", "textgrid"], help="default: ctm textgrid"
    )
    parser.add_argument("--json", action="store_true", help="print what was written as one JSON object")

    scores = parser.add_argument_group("with scores")
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
        DataError: a file is missing or broken, or scores and texts don't hold the same utterances.
        OutOfVocabularyError: the lexicon lacks a word. InfeasibleError: an utterance is too short for its text.
    """
    if args.source.suffix == ".npz":
        aligned = {"": _from_scores(args)}
    elif args.source.suffix == ".toml":
        aligned = _from_recipe(args)
    else:
        raise ArgumentError(
            f"{args.source} is neither scores (.npz) nor a recipe's configuration (.toml)", argument="source"
        )
    written = [
        path for name, found in aligned.items() for path in _write(args.out / name, found, args.format)
    ]
    count = sum(map(len, aligned.values()))
    words = sum(len(utterance.words) for found in aligned.values() for utterance in found)
    if args.json:
        print(
            json.dumps(
                {"utterances": count, "words": words, "files": [str(path) for path in written]}, indent=2
            )
        )
    else:
        print(f"{count} utterances, {words} words: {args.out}")
    return 0


def _from_scores(args: argparse.Namespace) -> list[AlignedUtterance]:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from seqtrain.align import Transcript, align_words
    from seqtrain.lexicon import AutomatonBuilder, read_lexicon, read_transcripts

    for name in ("lexicon", "text", "frame_shift"):
        if getattr(args, name) is None:
            option = name.replace("_", "-")
            raise ArgumentError(f"aligning scores needs --{option}", argument=name)
    builder = AutomatonBuilder(read_lexicon(args.lexicon), _topology(args))
    texts = read_transcripts(args.text)
    scores = _read_scores(args.source, len(builder.inventory))
    missing = [tag for tag in scores if tag not in texts]
    if missing:
        raise DataError(
            f"{args.text} lacks {len(missing)} of the {len(scores)} utterances in {args.source}, "
            f"the first is {missing[0]!r}",
            path=str(args.text),
            utterance=missing[0],
        )
    aligned = []
    tags = list(scores)
    for first in range(0, len(tags), _UTTERANCES_AT_A_TIME):
        part = tags[first : first + _UTTERANCES_AT_A_TIME]
        lengths = torch.tensor([len(scores[tag]) for tag in part])
        aligned += align_words(
            pad_sequence([torch.from_numpy(scores[tag]) for tag in part], batch_first=True),
            lengths,
            [Transcript(tag, texts[tag], len(scores[tag]) * args.frame_shift) for tag in part],
            builder,
            frame_shift=args.frame_shift,
            frame_offset=args.frame_offset,
        )
    return aligned


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
    import sys

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


def _write(directory: Path, utterances: list[AlignedUtterance], formats: list[str]) -> list[Path]:
    from seqtrain.align import write_ctm, write_jsonl, write_textgrids

    written = []
    for name in dict.fromkeys(formats):
        if name == "ctm":
            write_ctm(directory / "words.ctm", utterances)
            written.append(directory / "words.ctm")
        elif name == "phones.ctm":
            write_ctm(directory / "phones.ctm", utterances, tier="phones")
            written.append(directory / "phones.ctm")
        elif name == "jsonl":
            write_jsonl(directory / "alignments.jsonl", utterances)
            written.append(directory / "alignments.jsonl")
        else:
            written += write_textgrids(directory / "textgrid", utterances)
    return written
