"""Every error seqtrain raises on purpose is of one family, says what is wrong, and holds it as fields."""

from __future__ import annotations

import inspect
import pickle

import pytest

from seqtrain import errors
from seqtrain.errors import Infeasible, InfeasibleError, MissingDependencyError, SeqtrainError


def classes() -> list[type[Exception]]:
    """All exceptions of the module."""
    return [
        value
        for _, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, Exception) and value.__module__ == errors.__name__
    ]


def test_one_family() -> None:
    assert all(issubclass(value, SeqtrainError) for value in classes())
    assert {value.__name__ for value in classes()} | {"Infeasible"} == set(errors.__all__)


def test_each_says_what_it_is_for() -> None:
    assert all(value.__doc__ for value in classes())


def test_errors_of_arguments_are_value_errors() -> None:
    """So that code which knows nothing of seqtrain catches them as it expects."""
    for value in (
        errors.ShapeError,
        errors.DtypeError,
        errors.LabelError,
        errors.FsaError,
        errors.ConfigError,
    ):
        assert issubclass(value, ValueError)
    assert issubclass(errors.DerivativeError, RuntimeError)
    assert issubclass(MissingDependencyError, ImportError)


def test_a_missing_dependency_says_how_to_get_it() -> None:
    error = MissingDependencyError("safetensors", extra="recipes")
    message = "safetensors is not installed; it comes with: pip install 'seqtrain[recipes]'"
    assert (str(error), error.package, error.extra) == (message, "safetensors", "recipes")


def test_infeasible_utterances_get_their_names_later() -> None:
    error = InfeasibleError([Infeasible(1, None, 3, 5, "too short"), Infeasible(0, None, 2, None, "odd")])
    assert "utterance 1: 3 frames given, needs 5: too short" in str(error)
    assert "utterance 0: 2 frames given: odd" in str(error)
    named = error.with_tags(["a", "b"])
    assert [item.tag for item in named.utterances] == ["b", "a"]
    assert "utterance 1 (b): 3 frames given, needs 5: too short" in str(named)
    assert error.with_tags(None) is error


@pytest.mark.parametrize(
    "error",
    [
        errors.ShapeError("wrong", argument="scores"),
        errors.LabelError("bad", argument="targets", utterance=1, position=2, label=3, num_labels=4),
        errors.NonFiniteScoresError("NaN", argument="scores", utterance=1, frame=2),
        errors.FsaError("malformed", sequence=1, arc=2, state=3, line=4),
        InfeasibleError([Infeasible(1, "tag", 3, 5, "too short")]),
        errors.AlignerItemError("unknown", segment="s", status="UNKNOWN", words=("a",), target="unix:x"),
        errors.AudioError("broken", path="x.wav", utterance="u"),
        errors.OutOfVocabularyError("missing", words=["a", "b"], utterance="u"),
        errors.CheckpointError("torn", path="x"),
        errors.DivergenceError("nan", stage="ctc", step=3, utterances=["a"]),
        MissingDependencyError("grpc", extra="bridge"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_cross_processes(error: SeqtrainError) -> None:
    """A data loader's worker hands its errors over pickled."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
