"""The one family of exceptions that seqtrain raises on purpose.

Each class carries what its message says as fields, so that a program can act on it: the argument, the utterance, the
numbers. The message ends with the fix where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "AlignerError",
    "AlignerItemError",
    "AlignerMismatchError",
    "AlignerTimeoutError",
    "AlignerUnavailableError",
    "ArgumentError",
    "AudioError",
    "CheckpointError",
    "ConfigError",
    "CudaError",
    "DataError",
    "DerivativeError",
    "DeviceError",
    "DivergenceError",
    "DtypeError",
    "EngineError",
    "FsaError",
    "Infeasible",
    "InfeasibleError",
    "LabelError",
    "LatticeSizeError",
    "LexiconError",
    "MissingDependencyError",
    "NonFiniteScoresError",
    "OutOfVocabularyError",
    "QuarantinedError",
    "SeqtrainError",
    "ShapeError",
    "SkippedError",
    "StageError",
    "UnknownSegmentError",
    "WorkerCrashedError",
]


def _rebuild(kind: type[SeqtrainError], arguments: tuple[Any, ...], fields: dict[str, Any]) -> SeqtrainError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(fields)
    return error


class SeqtrainError(Exception):
    """Base of every error that seqtrain raises on purpose; it crosses from a worker process whole."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception would call the class with the message alone, and lose the fields.
        return _rebuild, (type(self), self.args, self.__dict__)


class ArgumentError(SeqtrainError, ValueError):
    """An argument has a value that the function can't work with; `argument` is its name."""

    def __init__(self, message: str, *, argument: str) -> None:
        super().__init__(message)
        self.argument = argument


class ShapeError(ArgumentError):
    """A tensor's shape, or a length, doesn't fit the other arguments."""


class DtypeError(ArgumentError):
    """A tensor's dtype isn't one the function takes."""


class DeviceError(ArgumentError):
    """A tensor is on a device where the function can't run, or arguments are on different devices."""


class LabelError(ArgumentError):
    """A label lies outside the columns of the scores, or is one that may not stand there (blank in the targets)."""

    def __init__(
        self,
        message: str,
        *,
        argument: str,
        utterance: int,
        position: int,
        label: int,
        num_labels: int | None,
    ) -> None:
        super().__init__(message, argument=argument)
        self.utterance = utterance
        self.position = position
        self.label = label
        self.num_labels = num_labels


class NonFiniteScoresError(ArgumentError):
    """The scores of an utterance hold NaN or +inf at `frame` (-inf is a legal score: probability zero)."""

    def __init__(self, message: str, *, argument: str, utterance: int, frame: int) -> None:
        super().__init__(message, argument=argument)
        self.utterance = utterance
        self.frame = frame


class FsaError(SeqtrainError, ValueError):
    """An automaton is malformed. `sequence`, `arc`, `state` and `line` (of a text) are None where they don't apply."""

    def __init__(
        self,
        message: str,
        *,
        sequence: int | None = None,
        arc: int | None = None,
        state: int | None = None,
        line: int | None = None,
    ) -> None:
        super().__init__(message)
        self.sequence = sequence
        self.arc = arc
        self.state = state
        self.line = line


@dataclass(frozen=True)
class Infeasible:
    """One utterance that no path of its automaton fits.

    `frames_needed` is the fewest frames the automaton accepts, None where it accepts no sequence at all or where the
    count of frames is not what stands in the way (`reason` says what does).
    """

    index: int
    tag: str | None
    frames: int
    frames_needed: int | None
    reason: str

    def __str__(self) -> str:
        name = f"utterance {self.index}" + (f" ({self.tag})" if self.tag is not None else "")
        needed = f", needs {self.frames_needed}" if self.frames_needed is not None else ""
        return f"{name}: {self.frames} frames given{needed}: {self.reason}"


class InfeasibleError(SeqtrainError):
    """Utterances for which no path exists; `utterances` lists every one of them."""

    _SHOWN = 20

    def __init__(self, utterances: Sequence[Infeasible]) -> None:
        self.utterances = tuple(utterances)
        shown = "\n".join(f"  {u}" for u in self.utterances[: self._SHOWN])
        more = len(self.utterances) - self._SHOWN
        super().__init__(
            f"{len(self.utterances)} utterance(s) without any path:\n{shown}"
            + (f"\n  … and {more} more (see the field `utterances`)" if more > 0 else "")
            + "\nFilter them out, subsample less, or pass on_infeasible='mask' (zero loss and gradient) or 'inf'."
        )

    def with_tags(self, tags: Sequence[str] | None) -> InfeasibleError:
        """The same error with the utterances' names filled in."""
        if tags is None:
            return self
        return InfeasibleError(
            [Infeasible(u.index, tags[u.index], u.frames, u.frames_needed, u.reason) for u in self.utterances]
        )


class LatticeSizeError(SeqtrainError):
    """A lattice would need more states than the `limit`, for the utterance of that index."""

    def __init__(self, message: str, *, utterance: int, limit: int) -> None:
        super().__init__(message)
        self.utterance = utterance
        self.limit = limit


class DerivativeError(SeqtrainError, RuntimeError):
    """A derivative was asked for that the operator doesn't have."""


class AlignerError(SeqtrainError):
    """Something went wrong between this process and the aligner service at `target`."""

    def __init__(self, message: str, *, target: str | None = None) -> None:
        super().__init__(message)
        self.target = target


class AlignerUnavailableError(AlignerError):
    """The service can't be reached, or went away, and retries within the deadline didn't help."""


class AlignerTimeoutError(AlignerError):
    """The service didn't answer within the deadline."""


class AlignerMismatchError(AlignerError):
    """The service has another configuration or label inventory than this run started with; never retried."""


class AlignerItemError(AlignerError):
    """The service answered, but has nothing for one segment; `status` says why, `words` lists unknown words."""

    def __init__(
        self, message: str, *, segment: str, status: str, words: Sequence[str] = (), target: str | None = None
    ) -> None:
        super().__init__(message, target=target)
        self.segment = segment
        self.status = status
        self.words = tuple(words)


class EngineError(SeqtrainError):
    """An aligner's engine has nothing for one segment, and the fault isn't the segment's own spelling or words."""

    def __init__(self, message: str, *, segment: str) -> None:
        super().__init__(message)
        self.segment = segment


class WorkerCrashedError(EngineError):
    """The engine's process died, hung or answered nonsense while it worked on `segment`; it was started anew."""


class QuarantinedError(EngineError):
    """`segment` has killed its engine's process before, more than once: it isn't tried again."""


class SkippedError(EngineError):
    """The engine worked on `segment` and discarded it, as one without a usable lattice or alignment."""


class DataError(SeqtrainError):
    """A manifest, corpus or utterance can't be used; names the file and the utterance."""

    def __init__(self, message: str, *, path: str | None = None, utterance: str | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.utterance = utterance


class UnknownSegmentError(DataError):
    """A segment (utterance) that the corpus or the transcripts don't have; `utterance` is its name."""


class AudioError(DataError):
    """An audio file is missing, broken or of a kind that can't be read."""


class LexiconError(SeqtrainError):
    """A lexicon is malformed (`line`), or a word (`word`) is missing from it."""

    def __init__(self, message: str, *, word: str | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.word = word
        self.line = line


class OutOfVocabularyError(LexiconError):
    """Words of an utterance are missing from the lexicon; `words` lists every one of them, in order of appearance."""

    def __init__(self, message: str, *, words: Sequence[str], utterance: str | None = None) -> None:
        super().__init__(message, word=words[0] if words else None)
        self.words = tuple(words)
        self.utterance = utterance


class ConfigError(SeqtrainError, ValueError):
    """A configuration has an unknown key or a bad value; `key` is its dotted name."""

    def __init__(self, message: str, *, key: str) -> None:
        super().__init__(message)
        self.key = key


class CheckpointError(SeqtrainError):
    """A checkpoint or saved statistic is missing, truncated, or belongs to another run."""

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class CudaError(SeqtrainError, RuntimeError):
    """CUDA's driver or its compiler is missing or has refused a call; `call` names it, `code` is its result or None."""

    def __init__(self, message: str, *, call: str, code: int | None = None) -> None:
        super().__init__(message)
        self.call = call
        self.code = code


class DivergenceError(SeqtrainError):
    """Training broke down: after `step` steps of `stage` the loss or its gradient isn't finite."""

    def __init__(self, message: str, *, stage: str, step: int, utterances: Sequence[str]) -> None:
        super().__init__(message)
        self.stage = stage
        self.step = step
        self.utterances = tuple(utterances)


class StageError(SeqtrainError):
    """The process that trained `stage` has died without saying why."""

    def __init__(self, message: str, *, stage: str) -> None:
        super().__init__(message)
        self.stage = stage


class MissingDependencyError(SeqtrainError, ImportError):
    """An optional package isn't installed; `extra` is the extra of seqtrain that brings it."""

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(f"{package} is not installed; it comes with: pip install 'seqtrain[{extra}]'")
        self.package = package
        self.extra = extra
