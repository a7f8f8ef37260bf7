"""Set-ups around the stand-in executable, with automata and words that RASR has made its goldens of."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from seqtrain.lexicon import AutomatonBuilder, HmmTopology, LabelInventory, read_bliss_lexicon
from sprint_bridge.backends.sprint import SprintBackend, SprintBackendConfig
from sprint_bridge.workers.settings import WorkerSettings

GOLDENS = Path(__file__).parents[1] / "goldens" / "rasr"
AUTOMATA = GOLDENS / "fsa" / "mono3.npz"
LEXICON = GOLDENS / "setup" / "lexicon.xml"
QUICK: dict[str, Any] = {
    "restart_delay": 0.01,
    "start_timeout": 10.0,
    "item_timeout": 5.0,
    "stop_timeout": 1.0,
}


def orthographies() -> dict[str, str]:
    """Segment → words, of the corpus that the goldens are of."""
    corpus = ElementTree.parse(GOLDENS / "setup" / "corpus.xml").getroot()
    return {
        f"{corpus.get('name')}/{recording.get('name')}/{segment.get('name')}": " ".join(
            (segment.findtext("orth") or "").split()
        )
        for recording in corpus.iter("recording")
        for segment in recording.iter("segment")
    }


def inventory() -> LabelInventory:
    """The labels of the goldens' variant mono3."""
    return AutomatonBuilder(read_bliss_lexicon(LEXICON), HmmTopology(states_per_phone=3)).inventory


@dataclass(frozen=True)
class StandIn:
    """An executable, and what goes with it."""

    executable: Path
    arguments: tuple[str, ...]
    labels: Path
    environment: Mapping[str, str]

    def config(self, *, workers: Mapping[str, Any] | None = None, **options: Any) -> SprintBackendConfig:
        """A configuration with it."""
        return SprintBackendConfig(
            executable=self.executable,
            labels=self.labels,
            environment=self.environment,
            silence="[SILENCE]",
            workers=WorkerSettings(**{**QUICK, **(workers or {})}),
            **{"arguments": self.arguments, **options},
        )

    def backend(self, *, workers: Mapping[str, Any] | None = None, **options: Any) -> SprintBackend:
        """The engine, started."""
        return SprintBackend(self.config(workers=workers, **options))


def install(
    folder: Path,
    *parameters: str,
    misbehave: Mapping[str, str] | None = None,
    extra: Mapping[str, str] | None = None,
) -> StandIn:
    """Puts the executable into a folder.

    Its interpreter sees the standard library, numpy, and what its control module brings along: no site-packages, no
    current directory.

    Args:
        parameters: NAME=VALUE of the stand-in.
        misbehave: segment → what it does over it.
        extra: further segments of its corpus and their words; their automata are those of the first one.
    """
    executable = folder / "nn-trainer.stand-in"
    script = (Path(__file__).with_name("stand_in_sprint.py")).read_text(encoding="utf-8")
    executable.write_text(f"#!{sys.executable} -S\n{script}", encoding="utf-8")
    executable.chmod(executable.stat().st_mode | stat.S_IXUSR)
    site = folder / "numpy-alone"
    site.mkdir()
    package = Path(np.__file__).parent
    for path in (package, package.with_name("numpy.libs")):
        if path.exists():
            (site / path.name).symlink_to(path)
    corpus = orthographies()
    arrays = dict(np.load(AUTOMATA))
    first = next(iter(corpus))
    for segment, text in ({} if extra is None else extra).items():
        corpus[segment] = text
        arrays.update(
            {
                name.replace(first, segment): array
                for name, array in arrays.items()
                if name.startswith(f"{first}|")
            }
        )
    np.savez(folder / "automata.npz", **arrays)
    (folder / "orthographies.json").write_text(json.dumps(corpus), encoding="utf-8")
    (folder / "misbehave.json").write_text(json.dumps(dict(misbehave or {})), encoding="utf-8")
    (folder / "labels.txt").write_text("\n".join(inventory().labels) + "\n", encoding="utf-8")
    config = folder / "stand-in.config"
    lines = [
        f"*.stand-in.automata = {folder / 'automata.npz'}",
        f"*.stand-in.orthographies = {folder / 'orthographies.json'}",
        f"*.stand-in.misbehave = {folder / 'misbehave.json'}",
    ]
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return StandIn(
        executable,
        (f"--config={config}", *(f"--*.stand-in.{parameter}" for parameter in parameters)),
        folder / "labels.txt",
        {"PYTHONPATH": str(site)},
    )


def install_returnn(folder: Path) -> Path:
    """A folder with a stand-in for the parts of RETURNN that its control module is made of."""
    root = folder / "returnn-root"
    for package in ("returnn", "returnn/sprint", "returnn/util"):
        (root / package).mkdir(parents=True)
        (root / package / "__init__.py").touch()
    (root / "returnn" / "sprint" / "control.py").write_text(
        Path(__file__).with_name("stand_in_returnn.py").read_text(encoding="utf-8"), encoding="utf-8"
    )
    (root / "returnn" / "util" / "task_system.py").write_text(
        "import numpy\n"
        "def make_numpy_ndarray_fromstring(content, dtype, shape):\n"
        "    return numpy.frombuffer(content, dtype=dtype).reshape(shape)\n"
    )
    return root
