"""A recipe from its first stage to its last, on words made of tones."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from seqtrain.cli.train import add_parser, run
from seqtrain.data import Corpus, write_corpus
from seqtrain.errors import AlignerUnavailableError, ArgumentError, CheckpointError, ConfigError, DataError
from seqtrain.fsa import FsaBatch
from seqtrain.training import run as run_module
from seqtrain.training.checkpoint import load_checkpoint
from seqtrain.training.entry import load_prepare
from seqtrain.training.progress import Console
from seqtrain.training.run import STAGES, RecipeRun
from seqtrain.training.service import ServiceSource, automaton_service
from seqtrain.training.targets import check_targets
from tests.recipes.tones import CONFIG, prepare, recipe


def test_both_stages_learn(finished: tuple[Path, str]) -> None:
    results = json.loads((finished[0] / "results.json").read_text())
    for stage in ("ctc", "hmm"):
        rates = results["scores"]["dev"][stage]
        assert rates["per"]["percent"] < 15, stage
        assert rates["per"]["reference"] == 32
        assert rates["wer_open"]["percent"] < 25, stage
        low, high = rates["per"]["interval"]
        assert low <= rates["per"]["percent"] <= high
    assert results["stages"]["hmm"]["steps"] == 200
    assert results["corpus"]["note"] == "no speech at all"
    assert results["corpus"]["heldout"]["dev"]["words"] == 16


def test_fine_tuned_stages_go_on_from_the_best_network(finished: tuple[Path, str]) -> None:
    workdir, said = finished
    results = json.loads((workdir / "results.json").read_text())

    def last_error(stage: str) -> float:
        records = [json.loads(line) for line in (workdir / stage / "metrics.jsonl").read_text().splitlines()]
        found = [r for r in records if "per_dev" in r][-1]
        return min(found["per_dev"], found.get("per_lm_dev", found["per_dev"]))

    for stage, earlier in (("lfmmi", ("ctc", "hmm")), ("mbr", ("ctc", "hmm", "lfmmi"))):
        start = results["stages"][stage]["start"]
        assert start in earlier
        assert last_error(start) == min(map(last_error, earlier))
        assert f"{stage} goes on from the network of {start}" in said
        assert results["scores"]["dev"][stage]["per"]["percent"] < 15, stage
        records = [json.loads(line) for line in (workdir / stage / "metrics.jsonl").read_text().splitlines()]
        logged = next(record for record in records if "loss" in record)
        specific = "gap" if stage == "lfmmi" else "expected_errors"
        assert {specific, "alignment_entropy", "silence_share"} <= set(logged)


@pytest.mark.parametrize("start", ["ctc", "hmm"])
@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_lattice_free_mmi_is_finite_at_other_learning_rates(
    finished: tuple[Path, str], tmp_path: Path, start: str, factor: float
) -> None:
    """Two epochs; a step that isn't finite raises DivergenceError."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    config = dataclasses.replace(CONFIG.lfmmi, start=start, learning_rate=factor * CONFIG.lfmmi.learning_rate)
    other = RecipeRun(
        dataclasses.replace(CONFIG, lfmmi=config), tmp_path, prepare=prepare, console=Console(io.StringIO())
    )
    other.run(["lfmmi"])
    records = [json.loads(line) for line in (tmp_path / "lfmmi" / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["epoch"] >= 2
    assert all(math.isfinite(value) for r in records for value in r.values() if isinstance(value, float))


@pytest.mark.parametrize(("start", "risk"), [("hmm", "frames"), ("ctc", "edits"), ("lfmmi", "frames")])
def test_minimum_bayes_risk_from_each_network(
    finished: tuple[Path, str], tmp_path: Path, start: str, risk: str
) -> None:
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    config = dataclasses.replace(CONFIG.mbr, start=start, risk=risk)
    results = RecipeRun(
        dataclasses.replace(CONFIG, mbr=config), tmp_path, prepare=prepare, console=Console(io.StringIO())
    ).run(["mbr", "score"])
    assert results["stages"]["mbr"]["start"] == start
    assert results["scores"]["dev"]["mbr"]["per"]["percent"] < 15


def test_what_a_fine_tuned_stage_needs(finished: tuple[Path, str], tmp_path: Path) -> None:
    def other(**mbr: Any) -> RecipeRun:
        config = dataclasses.replace(CONFIG, mbr=dataclasses.replace(CONFIG.mbr, **mbr))
        return RecipeRun(config, tmp_path, prepare=prepare, console=Console(io.StringIO()))

    recipe(tmp_path).run(["prepare"])
    with pytest.raises(CheckpointError, match="none is there: run the stage ctc or hmm first"):
        recipe(tmp_path).run(["lfmmi"])
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    with pytest.raises(
        ConfigError, match="samples from CTC, and the network of stage hmm has the labels of the HMM"
    ):
        other(start="hmm", risk="edits").run(["mbr"])


def test_what_is_said_and_left_behind(finished: tuple[Path, str]) -> None:
    workdir, said = finished
    assert "dev: 4 utterances, 16 words, 32 phones (no speech at all)" in said
    assert "hmm: 200/200" in said
    page = (workdir / "report.html").read_text()
    assert "no speech at all" in page
    assert "full-sum HMM" in page
    lines = (workdir / "alignments" / "dev-hmm.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"] for line in lines} == {f"dev-{i}" for i in range(4)}
    for stage in ("ctc", "hmm"):
        lines = (workdir / stage / "metrics.jsonl").read_text().splitlines()
        assert {json.loads(line)["stage"] for line in lines} == {stage}


def test_recognized_words_have_times_and_confidences(finished: tuple[Path, str]) -> None:
    workdir, _ = finished
    for stage in ("ctc", "hmm", "lfmmi", "mbr"):
        lines = (workdir / "decoded" / f"dev-{stage}.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        assert {record["id"] for record in records} == {f"dev-{i}" for i in range(4)}
        words = [word for record in records for word in record["words"]]
        assert 14 <= len(words) <= 18, stage
        assert all(0 <= word["start_s"] < word["end_s"] and 0 < word["confidence"] <= 1.001 for word in words)


# A network that looks at its surroundings may place a word early or late, but not by half a word.
def test_words_lie_where_they_were_said(finished: tuple[Path, str]) -> None:
    workdir, _ = finished
    for utterance in recipe(workdir, resume=True).aligned("hmm", "dev").values():
        assert [word.start_s for word in utterance.words] == pytest.approx(
            [0.06 + 0.3 * i for i in range(4)], abs=0.12
        )


def test_a_finished_run_resumes_without_training(finished: tuple[Path, str], tmp_path: Path) -> None:
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    before = (workdir / "hmm" / "checkpoint.safetensors").read_bytes()
    metrics = (workdir / "hmm" / "metrics.jsonl").read_text()
    said = io.StringIO()
    recipe(workdir, resume=True, stream=said).run(["ctc", "hmm"])
    assert (workdir / "hmm" / "metrics.jsonl").read_text() == metrics
    old = load_checkpoint(workdir / "hmm" / "checkpoint.safetensors")
    assert old.position.step == 200
    assert len((workdir / "hmm" / "checkpoint.safetensors").read_bytes()) == len(before)


def test_a_killed_service_is_a_clear_error_and_the_run_resumes(
    finished: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def killed(**options: Any) -> Iterator[ServiceSource]:
        """The service of the run, whose process is killed before the batch of step 25."""
        with automaton_service(**options) as source:
            answer, calls = source.automata, 0

            def automata(tags: Sequence[str]) -> FsaBatch:
                nonlocal calls
                calls += 1
                if calls == 25:
                    pid = source.bridge.pid
                    assert pid is not None
                    os.kill(pid, signal.SIGKILL)
                    with suppress(AlignerUnavailableError):
                        while True:
                            source.bridge.check()
                return answer(tags)

            monkeypatch.setattr(source, "automata", automata)
            yield source

    recipe(tmp_path).run(["prepare"])
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "automaton_service", killed)
        begun = time.monotonic()
        with pytest.raises(AlignerUnavailableError, match=r"run again with --resume") as caught:
            recipe(tmp_path).run(["hmm"])
        assert time.monotonic() - begun < CONFIG.hmm.timeout
    assert "ended with status -9" in str(caught.value)
    assert load_checkpoint(tmp_path / "hmm" / "checkpoint.safetensors").position.step == 20

    recipe(tmp_path, resume=True).run(["hmm"])
    resumed, whole = (load_checkpoint(d / "hmm" / "checkpoint.safetensors") for d in (tmp_path, finished[0]))
    assert resumed.position.step == 200
    for name, value in whole.tensors.items():
        assert torch.equal(value, resumed.tensors[name]), name


def test_stages_need_those_before(tmp_path: Path, finished: tuple[Path, str]) -> None:
    with pytest.raises(
        ArgumentError, match="there is no stage 'decode'; the stages are prepare, ctc, hmm, lfmmi, mbr, align"
    ):
        recipe(tmp_path).run(["decode"])
    with pytest.raises(DataError, match="run the stage 'prepare' first"):
        recipe(tmp_path).run(["ctc"])
    recipe(tmp_path).run(["prepare"])
    with pytest.raises(CheckpointError, match=r"checkpoint .*ctc.* doesn't exist"):
        recipe(tmp_path).run(["score"])


def test_a_corpus_may_need_other_settings(tmp_path: Path) -> None:
    def digits(folder: Path, options: Mapping[str, Any], console: Console) -> Corpus:
        corpus = dataclasses.replace(prepare(folder, options, console), settings=settings)
        write_corpus(corpus)
        return corpus

    settings = {"hmm.prior_scale": 0.25}
    changed = RecipeRun(CONFIG, tmp_path, prepare=digits, console=Console(io.StringIO()))
    changed.run(["prepare"])
    assert changed.config == dataclasses.replace(
        CONFIG, hmm=dataclasses.replace(CONFIG.hmm, prior_scale=0.25)
    )
    settings = {"hmm.prior": 0.25}
    with pytest.raises(ConfigError, match=r"unknown key hmm\.prior; did you mean hmm\.prior_scale"):
        RecipeRun(CONFIG, tmp_path, prepare=digits, console=Console(io.StringIO())).run(["prepare"])


def test_targets(finished: tuple[Path, str]) -> None:
    results = json.loads((finished[0] / "results.json").read_text())
    at_most = {"dev.ctc.per": 20.0, "dev.hmm.wer_open": -1.0, "std.ctc.per": 0.0}
    met, missed, unknown = check_targets(results, at_most=at_most, at_least={"dev.hmm.ends_within": 70.0})
    assert met.met
    assert str(missed).startswith("MISSED: dev.hmm.wer_open ")
    assert str(missed).endswith(", at most -1")
    assert str(unknown) == "MISSED: dev.hmm.ends_within not measured, at least 70"


def test_a_missed_target_is_the_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.toml"
    config.write_text(TOML + '[targets.at_most]\n"dev.ctc.per" = 5\n')
    words = [str(config), "--workdir", str(tmp_path / "w"), "--stages", "prepare"]
    assert run(arguments(*words)) == 0
    assert run(arguments(*words, "--check-targets")) == 1
    assert "MISSED: dev.ctc.per not measured, at most 5" in capsys.readouterr().err


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    return parser.parse_args(["train", *words])


TOML = """
name = "tones"
corpus = "tests.recipes.tones:prepare"
threads = 1
[features]
sample_rate = 8000
[ctc]
steps = 60
[hmm]
steps = 60
"""


def test_the_command_names_every_stage() -> None:
    assert arguments("config.toml").stages.split(",") == list(STAGES)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.toml"
    config.write_text(TOML)
    status = run(
        arguments(
            str(config),
            "--workdir",
            str(tmp_path / "work"),
            "--stages",
            "prepare",
            "--json",
            "--set",
            "seed=7",
        )
    )
    assert status == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["corpus"]["seed"] == 7
    assert "train: 24 utterances" in printed.err


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("ctc.stpes=3", "unknown key ctc.stpes; did you mean ctc.steps?"),
        ("lfmmi.start=mbr", "lfmmi.start: start is 'mbr'; it must be 'best' or one of ctc, hmm"),
        (
            "phone_model.smoothing=none",
            "phone_model.smoothing: smoothing is 'none'; it must be 'witten-bell' or",
        ),
        ("mbr.risk=words", "mbr.risk: risk is 'words'; it must be 'frames' or 'edits'"),
        ("mbr.count=1", "mbr.count: count is 1; it must be at least 2"),
        ("lfmmi.leak=-1.0", "lfmmi.leak: leak is -1.0; it must be finite and not negative"),
        ("ctc.steps=0", "ctc.steps: steps is 0; it must be positive"),
        ("ctc.steps=1.5", "ctc.steps must be int, not 1.5"),
        ("hmm.phone_loop=2.0", "hmm.phone_loop: phone_loop is 2.0; it must lie in [0, 1]"),
        ("model.dilations=3", "model.dilations must be a list, not 3"),
        ("model=3", "model must be a table, not 3"),
        ("seed.x=3", "seed.x: seed isn't a table"),
        ("name=a/b", "name: name is 'a/b'; it names a folder"),
        ("seed", "'seed' isn't of the form key=value"),
        ("seed=[", "the value of seed isn't TOML"),
        ("targets.at_most={x=3}", "targets.at_most: 'x' isn't set.stage.measure"),
        ('targets.at_least={"std.ctc.per"="a"}', "targets.at_least: std.ctc.per is 'a'; it must be a number"),
        ("corpus=nothing", "corpus is 'nothing'; it must be module:function"),
        ('corpus="no_such_module:f"', "there is no module no_such_module"),
        ('corpus="tests.recipes.tones:f"', "tests.recipes.tones has no function f"),
    ],
)
def test_bad_settings_name_their_key(tmp_path: Path, assignment: str, message: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(TOML.replace("threads = 1", "threads = 1\nseed = 1"))
    with pytest.raises(ConfigError) as caught:
        run(
            arguments(
                str(config), "--stages", "prepare", "--workdir", str(tmp_path / "w"), "--set", assignment
            )
        )
    assert message in str(caught.value)


def test_a_missing_key_and_a_missing_file(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(TOML.replace("sample_rate = 8000", ""))
    with pytest.raises(ConfigError, match=r"features\.sample_rate is missing") as caught:
        run(arguments(str(config)))
    assert caught.value.key == "features.sample_rate"
    with pytest.raises(ConfigError, match=r"no\.toml can't be read"):
        run(arguments(str(tmp_path / "no.toml")))


def test_recipes_are_found_from_their_configuration() -> None:
    folder = Path(__file__).parents[2] / "recipes" / "digits"
    prepared = load_prepare("recipes.digits.corpus:prepare", config=folder / "config.toml")
    assert prepared.__module__ == "recipes.digits.corpus"
