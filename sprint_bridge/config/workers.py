"""How many workers an engine gets and how long they may take, in a configuration: `instances`, and `worker`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from sprint_bridge.config.section import Section
from sprint_bridge.workers.settings import WorkerSettings

__all__ = ["dump_workers", "parse_workers"]


def parse_workers(section: Section) -> WorkerSettings:
    """The settings of a pool, from the section of its engine."""
    default = WorkerSettings()
    worker = section.section("worker")
    values: dict[str, Any] = {"instances": section.integer("instances", default.instances, least=1)}
    for field in fields(WorkerSettings):
        if field.name == "instances":
            continue
        value = getattr(default, field.name)
        values[field.name] = (
            worker.integer(field.name, value, least=1)
            if isinstance(value, int)
            else worker.seconds(field.name, value)
        )
    worker.finish()
    return WorkerSettings(**values)


def dump_workers(settings: WorkerSettings) -> dict[str, object]:
    """`instances` and `worker` as plain values."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {"instances": values.pop("instances"), "worker": values}
