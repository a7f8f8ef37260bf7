"""Transition costs: their configuration, and where each is paid."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from seqtrain.errors import ConfigError
from seqtrain.lexicon.rasr import Configuration, RasrAutomatonBuilder
from seqtrain.lexicon.rasr.transitions import StateCosts, TransitionCosts
from tests.lexicon.rasr.setup import ACOUSTICS, PARSER, lexicon_text, write_setup

COSTS = (
    f"{ACOUSTICS}.tdp.*.loop = 0.7",
    f"{ACOUSTICS}.tdp.*.forward = 0.4",
    f"{ACOUSTICS}.tdp.*.skip = 3",
    f"{ACOUSTICS}.tdp.*.exit = 1.5",
    f"{ACOUSTICS}.tdp.silence.loop = 0.1",
    f"{ACOUSTICS}.tdp.silence.forward = 2.5",
    f"{ACOUSTICS}.tdp.silence.skip = 5",
    f"{ACOUSTICS}.tdp.silence.exit = 4",
    f"{ACOUSTICS}.hmm.states-per-phone = 1",
)


def read(folder: Path, *lines: str) -> TransitionCosts:
    path = folder / "tdp.config"
    path.write_text("\n".join(lines))
    return TransitionCosts.from_configuration(Configuration(path))


def test_reading_costs(tmp_path: Path) -> None:
    defaults = StateCosts(3.0, 0.0, 3.0, 0.0)
    assert read(tmp_path) == TransitionCosts(defaults, defaults, defaults, legacy=True)
    found = read(
        tmp_path,
        "scale = 0.5",
        "applicator-type = corrected",
        "tying-type = global-and-nonword",
        "*.loop = 1",
        "state-1.loop = 7",
        "nonword-0.loop = 8",
        "*.skip = infinity",
        "silence.exit = 6",
        "entry-m1.loop = infinity",
    )
    assert found.phone == StateCosts(0.5, 0.0, math.inf, 0.0)
    assert found.silence == StateCosts(0.5, 0.0, math.inf, 3.0)
    assert found.entry == StateCosts(math.inf, 0.0, math.inf, 0.0)
    assert not found.legacy
    assert read(tmp_path, "scale = 0", "*.skip = infinity").phone == StateCosts(0.0, 0.0, math.inf, 0.0)


def test_what_is_not_supported_is_named(tmp_path: Path) -> None:
    for line, message in (
        ("applicator-type = new", "applicator-type is 'new'; it must be one of legacy, corrected"),
        ("tying-type = cart", "tying-type is 'cart'; it must be one of global, global-and-nonword"),
        ("scale = infinity", "scale is inf; it must be finite"),
        ("silence.loop = -infinity", r"silence\.loop is -infinity; a cost may only be infinity"),
    ):
        with pytest.raises(ConfigError, match=message):
            read(tmp_path, line)


def built(
    folder: Path, text: str, *lines: str, words: dict[str, list[str]] | None = None
) -> dict[tuple[int, int], float]:
    config = write_setup(
        folder,
        *COSTS,
        *lines,
        lexicon=lexicon_text(words or {"ab": ["A B"], "b": ["B"]}),
        segments={"s": text},
    )
    fsa = RasrAutomatonBuilder.from_config(config).build("c/r/s")
    return {
        (start, to): pytest.approx(-weight)
        for (start, to, _), weight in zip(fsa.arcs.tolist(), fsa.weights.tolist(), strict=True)
        if to < fsa.num_states - 1
    }


def test_corrected(tmp_path: Path) -> None:
    # Silence, A, B, silence, B, silence.
    assert built(tmp_path, "ab b", f"{ACOUSTICS}.tdp.applicator-type = corrected") == {
        (0, 1): 0.0,
        (0, 2): 0.0,
        (0, 3): 3.0,  # over A: as from no state
        (1, 1): 0.1,
        (1, 2): 2.5 + 4.0,
        (1, 3): 5.0 + 4.0,
        (2, 2): 0.7,
        (2, 3): 0.4,  # over B there is no way, since it ends the word
        (3, 3): 0.7,
        (3, 4): 0.4 + 1.5,
        (3, 5): 0.4 + 1.5,
        (4, 4): 0.1,
        (4, 5): 2.5 + 4.0,
        (5, 5): 0.7,
        (5, 6): 0.4 + 1.5,
        (6, 6): 0.1,
    }


def test_legacy(tmp_path: Path) -> None:
    lines = (
        f"{ACOUSTICS}.tdp.applicator-type = legacy",
        f"{ACOUSTICS}.tdp.entry-m1.forward = 0.3",
        f"{ACOUSTICS}.tdp.entry-m1.skip = 2",
    )
    assert built(tmp_path, "ab b", *lines) == {
        (0, 1): 0.3,
        (0, 2): 0.3,
        (0, 3): 2.0,
        (1, 1): 0.1,
        (1, 2): 4.0 + 0.3,
        (1, 3): 4.0 + 2.0,
        (2, 2): 0.7,
        (2, 3): 0.4,
        (3, 3): 0.7,
        (3, 4): 1.5 + 0.3,
        (3, 5): 1.5 + 0.3,
        (4, 4): 0.1,
        (4, 5): 4.0 + 0.3,
        (5, 5): 0.7,
        (5, 6): 1.5 + 0.3,
        (6, 6): 0.1,
    }


def test_discharge_within_words(tmp_path: Path) -> None:
    lines = (
        f"{ACOUSTICS}.phonology.history-length = 1",
        f"{ACOUSTICS}.phonology.future-length = 1",
        f"{ACOUSTICS}.fix-allophone-context-at-word-boundaries = yes",
    )
    corrected = built(tmp_path, "ab b", *lines)
    # A (2) is entered from the start and from silence, and two contexts of B (3, 4) are behind it.
    assert (corrected[2, 3], corrected[2, 4]) == (0.4 + 0.4, 0.4 + 0.4)
    legacy = built(tmp_path, "ab b", *lines, f"{ACOUSTICS}.tdp.applicator-type = legacy")
    assert (legacy[2, 3], legacy[2, 4]) == (0.4, 0.4)
    # Of several states the last is entered one way only.
    longer = built(tmp_path, "ab b", *lines, f"{ACOUSTICS}.hmm.states-per-phone = 2")
    assert sorted(
        cost for (start, _), cost in ((key, value.expected) for key, value in longer.items()) if start == 3
    )[0] == pytest.approx(0.4)


def test_discharge_behind_words(tmp_path: Path) -> None:
    again = built(
        tmp_path, "b b", f"{PARSER}.allow-for-silence-repetitions = yes", f"{ACOUSTICS}.tdp.*.skip = infinity"
    )
    # Silence (3) behind the first word (2): what is left has been forgotten, so silence pays the phones' forward.
    assert again[3, 4] == 4.0 + 0.4
    assert again[3, 3] == -math.log(math.exp(-0.1) + math.exp(-4.4))
    # Into the start there is one way only, that of silence.
    assert again[1, 2] == 4.0 + 2.5
    assert again[1, 1] == -math.log(math.exp(-0.1) + math.exp(-6.5))


def test_repeated_silence_can_cost_less_than_nothing(tmp_path: Path) -> None:
    free = (
        f"{ACOUSTICS}.tdp.*.exit = 0",
        f"{ACOUSTICS}.tdp.silence.exit = 0",
        f"{ACOUSTICS}.tdp.*.skip = infinity",
    )
    again = built(tmp_path, "b b", *free, f"{PARSER}.allow-for-silence-repetitions = yes")
    assert again[3, 3] == pytest.approx(-0.454355, abs=1e-6)
