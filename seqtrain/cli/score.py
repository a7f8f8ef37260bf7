"""`seqtrain score`: error rates of hypotheses against references."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqtrain.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seqtrain.decoding import ErrorRate
    from seqtrain.lexicon import Lexicon

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Adds the command to the subparsers of `seqtrain`."""
    parser = subparsers.add_parser(
        "score",
        help="word, phone and character error rates",
        description="Compares hypotheses with references: files of lines `utterance word word …`, or JSON lines with "
        "`id` and `text`.",
    )
    parser.add_argument("reference", type=Path, help="what was said")
    parser.add_argument("hypothesis", type=Path, help="what was recognized")
    parser.add_argument(
        "--lexicon",
        type=Path,
        metavar="FILE",
        help="also the phone error rate, each word taken by its first pronunciation in this lexicon",
    )
    parser.add_argument(
        "--characters", action="store_true", help="also the character error rate, spaces left out"
    )
    parser.add_argument(
        "--missing-is-empty",
        action="store_true",
        help="count an utterance without hypothesis as all deleted (otherwise an error)",
    )
    parser.add_argument(
        "--worst", type=int, default=0, metavar="N", help="also list the N utterances with the most errors"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Prints the error rates that the arguments ask for; returns the exit status, 0.

    Raises:
        DataError: a file can't be read, or the files don't hold the same utterances.
        OutOfVocabularyError: the lexicon lacks a word.
        MissingDependencyError: kaldialign isn't installed.
    """
    from seqtrain.decoding import error_rate
    from seqtrain.lexicon import read_lexicon, read_transcripts

    references = read_transcripts(args.reference)
    hypotheses = _paired(args, references, read_transcripts(args.hypothesis))
    words = [text.split() for text in references.values()], [text.split() for text in hypotheses]
    rates = {"WER": error_rate(*words)}
    if args.lexicon is not None:
        lexicon = read_lexicon(args.lexicon)
        rates["PER"] = error_rate(*([_phones(lexicon, tag, text) for tag, text in zip(references, side, strict=True)]
                                    for side in words))  # fmt: skip
    if args.characters:
        rates["CER"] = error_rate(*([list("".join(text)) for text in side] for side in words))
    tags = list(references)
    if args.json:
        print(json.dumps(_as_json(rates, tags, args.worst), indent=2, ensure_ascii=False))
    else:
        print(_table(rates))
        for tag, counts in _worst(rates["WER"], tags, args.worst):
            print(f"\n{tag}: {counts.errors} of {counts.reference} words")
            print(f"  said  {references[tag]}")
            print(f"  found {hypotheses[tags.index(tag)]}")
    return 0


def _paired(
    args: argparse.Namespace, references: Mapping[str, str], hypotheses: Mapping[str, str]
) -> list[str]:
    """The hypothesis of each reference."""
    if not references:
        raise DataError(f"{args.reference} holds no utterance", path=str(args.reference))
    unknown = [tag for tag in hypotheses if tag not in references]
    if unknown:
        raise DataError(
            f"{args.hypothesis}: {len(unknown)} utterance(s) that {args.reference} doesn't have, "
            f"the first is {unknown[0]!r}",
            path=str(args.hypothesis),
            utterance=unknown[0],
        )
    missing = [tag for tag in references if tag not in hypotheses]
    if missing and not args.missing_is_empty:
        raise DataError(
            f"{args.hypothesis} lacks {len(missing)} of {len(references)} utterances, the first is {missing[0]!r}; "
            "--missing-is-empty counts them as all deleted",
            path=str(args.hypothesis),
            utterance=missing[0],
        )
    return [hypotheses.get(tag, "") for tag in references]


def _phones(lexicon: Lexicon, tag: str, words: Sequence[str]) -> list[str]:
    from seqtrain.errors import OutOfVocabularyError

    missing = lexicon.missing_words(words)
    if missing:
        raise OutOfVocabularyError(
            f"utterance {tag!r}: not in the lexicon: {', '.join(map(repr, missing))}",
            words=missing,
            utterance=tag,
        )
    return [phoneme for word in words for phoneme in lexicon[word][0].phonemes]


def _table(rates: Mapping[str, ErrorRate]) -> str:
    lines = [
        f"{'':4} {'rate':>8}  {'95 % interval':>15} {'errors':>7} {'of':>7} {'sub':>6} {'ins':>6} {'del':>6}"
    ]
    for name, rate in rates.items():
        total = rate.total
        interval = ""
        if total.reference:
            low, high = rate.confidence_interval()
            interval = f"{100 * low:.2f} … {100 * high:.2f}"
        lines.append(
            f"{name:4} {rate.percent:7.2f}%  {interval:>15} {total.errors:7} {total.reference:7} "
            f"{total.substitutions:6} {total.insertions:6} {total.deletions:6}"
        )
    count = len(next(iter(rates.values())).utterances)
    lines.append(f"{count} utterances; the interval is a bootstrap over them")
    return "\n".join(lines)


def _worst(rate: ErrorRate, tags: Sequence[str], count: int) -> list[tuple[str, Any]]:
    ranked = sorted(zip(tags, rate.utterances, strict=True), key=lambda item: -item[1].errors)
    return [(tag, counts) for tag, counts in ranked[:count] if counts.errors]


def _as_json(rates: Mapping[str, ErrorRate], tags: Sequence[str], worst: int) -> dict[str, Any]:
    from dataclasses import asdict

    found: dict[str, Any] = {"utterances": len(tags)}
    for name, rate in rates.items():
        # A rate over nothing is no number in JSON.
        percent = rate.percent if rate.total.reference or not rate.total.errors else None
        interval = [100 * bound for bound in rate.confidence_interval()] if rate.total.reference else None
        found[name.lower()] = {"percent": percent, "interval": interval, **asdict(rate.total)}
    if worst:
        found["worst"] = [{"id": tag, **asdict(c)} for tag, c in _worst(rates["WER"], tags, worst)]
    return found
