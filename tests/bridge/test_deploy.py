"""The examples for running services are valid: YAML, command lines, configuration, addresses."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from seqtrain.aligner.targets import split_targets
from sprint_bridge import cli
from sprint_bridge.config import read_config

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
BRIDGES = {name: service for name, service in COMPOSE["services"].items() if name.startswith("bridge-")}


def mounted(service: dict[str, Any], inside: str) -> Path:
    """The file here that a container sees as `inside`."""
    for volume in service["volumes"]:
        source, target, *_ = volume.split(":")
        if target == inside:
            return DEPLOY / source
    raise AssertionError(f"{inside} isn't mounted")


def test_there_are_three() -> None:
    assert sorted(BRIDGES) == ["bridge-a", "bridge-b", "bridge-c"]


@pytest.mark.parametrize("name", BRIDGES)
def test_a_services_command_line(name: str) -> None:
    service = BRIDGES[name]
    program, *arguments = service["command"]
    assert program == "sprint-bridge"
    options = cli._parser().parse_args(arguments)
    assert options.run is cli._serve
    options.config = str(mounted(service, options.config))
    config = cli._config(options)
    assert config.listen == options.listen
    assert config.drain_seconds < float(service["stop_grace_period"].removesuffix("s"))

    check, program, *arguments = service["healthcheck"]["test"]
    assert (check, program) == ("CMD", "sprint-bridge")
    health = cli._parser().parse_args(arguments)
    assert health.run is cli._ping
    assert health.address == config.listen
    assert health.timeout < float(service["healthcheck"]["timeout"].removesuffix("s"))


def test_the_trainer_asks_all_of_them() -> None:
    trainer = COMPOSE["services"]["trainer"]
    listening = {
        cli._parser().parse_args(service["command"][1:]).listen: service for service in BRIDGES.values()
    }
    targets = split_targets(trainer["environment"]["ALIGNER"])
    assert sorted(targets) == sorted(listening)
    assert set(trainer["depends_on"]) == set(BRIDGES)
    for service in (trainer, *BRIDGES.values()):
        assert service["user"] == trainer["user"], "the sockets are one user's alone"
        folders = {volume.split(":")[1] for volume in service["volumes"] if volume.startswith("sockets:")}
        assert folders == {str(Path(target.removeprefix("unix:")).parent) for target in targets}
    volume = COMPOSE["volumes"]["sockets"]["driver_opts"]
    user, group = trainer["user"].split(":")
    assert volume["o"] == f"mode=0700,uid={user},gid={group}"


def test_the_configuration_is_one() -> None:
    config = read_config(DEPLOY / "bridge.yaml")
    assert config.metrics is None
    assert config.listen is None


def test_the_systemd_unit() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(DEPLOY / "sprint-bridge.service")
    program, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert Path(program).name == "sprint-bridge"
    options = cli._parser().parse_args(arguments)
    assert options.run is cli._serve
    assert options.listen == f"unix:/run/{unit['Service']['RuntimeDirectory']}/aligner.sock"
    assert unit["Service"]["RuntimeDirectoryMode"] == "0700"
