"""Stands in for a Sprint or RASR executable: treats its Python control module as RASR does, and knows a few automata.

Tests copy it behind a line that names an interpreter, make it executable, and call it with RASR's arguments. It needs
numpy alone. Besides those that choose the module, its parameters are, all of the form --*.stand-in.NAME=VALUE:

    automata       .npz of `<segment>|num_states`, `|edges` and `|weights`, as RASR exported them
    orthographies  .json, segment → words
    loop           python-control-loop (default) or iterate-corpus
    lattice        true: a lattice processor asks the Python layer, instead of the control object, for scores
    frames         of every segment, with a lattice processor; default 30
    bytes          true: takes an orthography of bytes, which RASR doesn't
    misbehave      .json, segment → kill | abort | hang | garbage | exit | discard; `kill-once` and so on only as long
                   as the file NAME.SEGMENT.seen isn't there

What it isn't asked for it lets be. What ends RASR's process ends this one.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

NUM_LABELS = 34


def critical_error(message: str) -> None:
    """RASR's way to end."""
    print(f"<critical-error>{message}</critical-error>", file=sys.stderr, flush=True)
    os._exit(1)


class Parameters:
    """The parameters of the command line; the last of a name counts."""

    def __init__(self, arguments: list[str]) -> None:
        self.values: dict[str, str] = {}
        for argument in arguments:
            if not argument.startswith("--"):
                critical_error(f"unexpected argument {argument!r}")
            name, _, value = argument[2:].partition("=")
            if name == "config":
                self._read(Path(value))
            else:
                self.values[name] = value

    def __getitem__(self, name: str) -> str:
        return self.values[f"*.{name}"]

    def get(self, name: str, default: str = "") -> str:
        return self.values.get(f"*.{name}", default)

    def _read(self, path: Path) -> None:
        if not path.exists():
            critical_error(f"configuration file {path} doesn't exist")
        for line in path.read_text().splitlines():
            name, equals, value = line.partition("=")
            if equals:
                self.values[name.strip()] = value.strip()


class Sprint:
    """The process."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        with np.load(parameters["stand-in.automata"]) as arrays:
            self.arrays = dict(arrays)
        self.orthographies: dict[str, str] = json.loads(
            Path(parameters["stand-in.orthographies"]).read_text()
        )
        self.vocabulary = {word for text in self.orthographies.values() for word in text.split()}
        misbehave = parameters.get("stand-in.misbehave")
        self.misbehaviours: dict[str, str] = json.loads(Path(misbehave).read_text()) if misbehave else {}
        self.config = parameters["pymod-config"]

    # ---- The native callback ----

    def callback(self, command: str, *args: Any, **kwargs: Any) -> Any:
        """What the control module may call."""
        commands = {
            "version": lambda: "<version>stand-in</version>",
            "version_number": lambda: 5,
            "export_allophone_state_fsa_by_segment_name": self.export_by_segment,
            "export_allophone_state_fsa_by_orthography": self.export_by_orthography,
            "get_orthography_by_segment_name": self.orthography,
            "get_alignment_from_cache": self.alignment,
            "calculate_criterion": self.criterion,
        }
        if command not in commands:
            raise ValueError(f"PythonControl callback(): unknown command {command!r}")
        return commands[command](*args, **kwargs)

    def export_by_segment(self, segment_name: str) -> tuple[int, int, Any, Any]:
        self.misbehave(segment_name)
        if segment_name not in self.orthographies:
            raise KeyError(
                "PythonControl export_allophone_state_fsa_by_segment_name: "
                f"unknown segment name {segment_name!r}"
            )
        edges = self.arrays[f"{segment_name}|edges"].astype(np.uint32).reshape(-1)
        weights = self.arrays[f"{segment_name}|weights"].astype(np.float32)
        return int(self.arrays[f"{segment_name}|num_states"]), len(weights), edges, weights

    def export_by_orthography(self, orthography: str) -> tuple[int, int, Any, Any]:
        if orthography != "".join(f"{word} " for word in orthography.split()):
            print("PRECONDITION FAILED: orthography", file=sys.stderr, flush=True)
            os.abort()
        # Unknown words are skipped.
        words = [word for word in orthography.split() if word in self.vocabulary]
        for segment, text in self.orthographies.items():
            if text.split() == words:
                return self.export_by_segment(segment)
        raise ValueError(f"the stand-in has no automaton of {orthography!r}")

    def orthography(self, segment_name: str) -> str:
        if segment_name not in self.orthographies:
            raise KeyError(
                f"PythonControl get_orthography_by_segment_name: unknown segment name {segment_name!r}"
            )
        return "".join(f"{word} " for word in self.orthographies[segment_name].split())

    def alignment(self, cache_filename: str, segment_name: str) -> Any:
        try:
            with np.load(cache_filename) as cache:
                return cache[segment_name].astype(np.uint32)
        except (OSError, KeyError) as error:
            raise ValueError(f"PythonControl get_alignment_from_cache: {error}") from error

    def criterion(
        self,
        posteriors: Any,
        orthography: Any = None,
        alignment: Any = None,
        output_error_type: str = "none",
        segment_name: str | None = None,
    ) -> tuple[Any, Any]:
        """-ln of the full sum over the segment's automaton, and its gradient before the softmax."""
        if isinstance(orthography, bytes) and self.parameters.get("stand-in.bytes") == "true":
            orthography = orthography.decode()
        if not isinstance(orthography, str):
            raise TypeError(f"callback() argument 3 must be str, not {type(orthography).__name__}")
        if segment_name is None or posteriors.shape[0] != NUM_LABELS:
            critical_error("criterion: dimensions don't fit")
        if self.misbehaviours.get(str(segment_name)) == "discard":
            return None, None
        _, _, edges, weights = self.export_by_segment(str(segment_name))
        loss, occupancy = full_sum(edges.reshape(3, -1), weights, posteriors.T)
        if output_error_type == "none":
            return loss, None
        return loss, np.ascontiguousarray((np.exp(posteriors.T) - occupancy).T.astype(np.float32))

    # ---- Its own doings ----

    def misbehave(self, segment: str) -> None:
        kind = self.misbehaviours.get(segment, "")
        if kind.endswith("-once"):
            seen = Path(f"{self.parameters['stand-in.misbehave']}.{segment.replace('/', '_')}.seen")
            if seen.exists():
                return
            seen.touch()
            kind = kind[: -len("-once")]
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "abort":
            os.abort()
        elif kind == "exit":
            critical_error(f"cannot cope with {segment}")
        elif kind == "hang":
            while True:
                time.sleep(60)
        elif kind == "garbage":
            options = dict(part.split(":", 1) for part in self.config.split(","))
            os.write(int(options["c2p_fd"]), b"\x00\x80<information>not a message</information>\n" * 4)

    def run(self) -> None:
        module = self.module("pymod")
        control = module.init(
            name="PythonControl",
            sprint_unit="NnTrainer.pythonControl",
            reference=object(),
            callback=self.callback,
            version_number=5,
            config=self.config,
        )
        if self.parameters.get("stand-in.loop", "python-control-loop") == "python-control-loop":
            control.run_control_loop(self.callback)
        else:
            self.iterate(control, module)
        control.exit()

    def module(self, prefix: str) -> Any:
        sys.path.insert(0, self.parameters[f"{prefix}-path"])
        return importlib.import_module(self.parameters[f"{prefix}-name"])

    def iterate(self, control: Any, module: Any) -> None:
        """Walks through the corpus in the order that the module says."""
        order = self.module("python-segment-order-pymod")
        lattice = self.parameters.get("stand-in.lattice") == "true"
        layer = None
        if lattice:
            layer = module.SprintNnPythonLayer(config=self.config)
            layer.setInputDimension(0, 3)
            layer.setOutputDimension(NUM_LABELS)
            layer.initializeNetworkParameters()
        else:
            # Tells the control object that it will be asked to process segments.
            control.init_processing(input_dim=-1, output_dim=-1)
        names = list(self.orthographies)
        for name in order.getSegmentList(
            corpusName="toy",
            segmentList=names,
            segmentsInfo={segment: {"nframes": 10} for segment in names},
            config=self.parameters["python-segment-order-config"],
        ):
            if name not in self.orthographies:
                critical_error(f"segment {name!r} isn't in the corpus")
            self.misbehave(name)
            if lattice:
                self.lattice_segment(control, layer, name)
            else:
                control.process_segment(
                    name=name,
                    orthography=self.orthography(name).encode(),
                    speaker_name="nobody",
                    features=None,
                    alignment=None,
                    soft_alignment=None,
                )

    def lattice_segment(self, control: Any, layer: Any, name: str) -> None:
        if self.misbehaviours.get(name) == "discard":
            return  # its lattice is broken
        control.init_segment(segment_name=name)
        frames = int(self.parameters.get("stand-in.frames", "30"))
        scores = layer.forward((np.zeros((3, frames), dtype=np.float32),))
        _, _, edges, weights = self.export_by_segment(name)
        loss, occupancy = full_sum(edges.reshape(3, -1), weights, scores.T)
        layer.backpropagate(np.ascontiguousarray((np.exp(scores.T) - occupancy).T.astype(np.float32)))
        control.notify_segment_loss(segment_name=name, loss=loss)


def full_sum(edges: Any, costs: Any, scores: Any) -> tuple[float, Any]:
    """-ln of the sum over all paths from state 0 to the last one, and the occupancies (T, V); plainly, in float64."""
    source, destination, label = (row.astype(np.int64) for row in edges)
    states, frames = int(destination.max()) + 1, len(scores)
    steps = np.asarray(scores, dtype=np.float64)[:, label] - costs.astype(np.float64)
    forward = np.full((frames + 1, states), -np.inf)
    backward = np.full((frames + 1, states), -np.inf)
    forward[0, 0] = backward[frames, states - 1] = 0.0
    with np.errstate(invalid="ignore"):
        for t in range(frames):
            np.logaddexp.at(forward[t + 1], destination, forward[t, source] + steps[t])
        for t in reversed(range(frames)):
            np.logaddexp.at(backward[t], source, backward[t + 1, destination] + steps[t])
    total = forward[frames, states - 1]
    occupancy = np.zeros((frames, scores.shape[1]))
    for t in range(frames):
        through = np.exp(forward[t, source] + steps[t] + backward[t + 1, destination] - total)
        np.add.at(occupancy[t], label, through)
    return -float(total), occupancy


def main() -> None:
    parameters = Parameters(sys.argv[1:])
    if parameters.get("python-control-enabled") != "true":
        critical_error("python-control-enabled isn't true")
    try:
        Sprint(parameters).run()
    except SystemExit:
        raise
    except BaseException as error:  # as RASR does with what Python raises
        import traceback

        traceback.print_exc()
        critical_error(f"Python: {error!r}")


if __name__ == "__main__":
    main()
