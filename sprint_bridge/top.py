"""How a running server is doing, from the counters that it serves for Prometheus."""

from __future__ import annotations

import math
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from seqtrain.errors import AlignerUnavailableError, ConfigError

__all__ = ["Sample", "read_sample", "report", "show_report"]

_PREFIX = "seqtrain_aligner_"
_MOST_BYTES = 8 << 20
_POOL = {
    "workers": "workers",
    "alive": "workers_alive",
    "restarts": "worker_restarts_total",
    "crashes": "worker_crashes_total",
    "in_flight": "items_in_flight",
    "waiting": "queue_length",
    "quarantined": "items_quarantined",
}
_CACHE = {"hits": "cache_hits_total", "misses": "cache_misses_total", "entries": "cache_entries"}


@dataclass(frozen=True)
class Sample:
    """The counters at one time.

    Attributes:
        time: on the clock of `time.monotonic`.
        values: by name, less the prefix, and by labels.
    """

    time: float
    values: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def of(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """The labels and values of a name."""
        for (found, labels), value in self.values.items():
            if found == name:
                yield dict(labels), value

    def get(self, name: str, **labels: str) -> float | None:
        """One value, or None where there is none."""
        return self.values.get((name, frozenset(labels.items())))


def read_sample(address: str, *, timeout: float = 5.0) -> Sample:
    """The counters that a server serves at `host:port`, its configuration's `metrics`.

    Raises:
        ConfigError: the address is malformed.
        AlignerUnavailableError: it isn't reachable, or what is there serves no counters of an aligner service.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(
            f"the address of the counters is {address!r}; it must be host:port, as `metrics` of the server has it",
            key="address",
        )
    # Never by way of a web proxy, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}/metrics", timeout=timeout) as answer:
            text = answer.read(_MOST_BYTES).decode("utf-8")
        families = list(text_string_to_metric_families(text))
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        raise AlignerUnavailableError(
            f"no counters at {address}: {reason}; does the server's configuration have `metrics: {address}`?",
            target=address,
        ) from error
    except ValueError as error:
        raise AlignerUnavailableError(
            f"what {address} serves aren't counters: {error}", target=address
        ) from error
    values = {
        (sample.name.removeprefix(_PREFIX), frozenset(sample.labels.items())): float(sample.value)
        for family in families
        for sample in family.samples
        if sample.name.startswith(_PREFIX)
    }
    if not values:
        raise AlignerUnavailableError(
            f"what {address} serves aren't counters of an aligner service", target=address
        )
    return Sample(time.monotonic(), values)


def report(now: Sample, before: Sample | None = None) -> dict[str, Any]:
    """The counters as plain values.

    Totals are since the server's start. Times of calls, in milliseconds, are of the calls that ended after `before`, or
    since the server's start; None where there were none. Rates, per second, are of the time since `before`; None
    without.
    """
    seconds = None if before is None else max(now.time - before.time, 1e-9)

    def rate(name: str, total: float, labels: Mapping[str, str]) -> float | None:
        if seconds is None or before is None:
            return None
        return (total - (before.get(name, **labels) or 0.0)) / seconds

    calls: dict[str, dict[str, Any]] = {}
    for labels, count in sorted(now.of("calls_in_flight"), key=lambda pair: pair[0]["method"]):
        method = labels["method"]
        buckets = _buckets(now, before, method)
        done = now.get("call_seconds_count", method=method) or 0.0
        calls[method] = {
            "in_flight": int(count),
            "per_second": rate("call_seconds_count", done, labels),
            "p50_ms": _milliseconds(_quantile(buckets, 0.5)),
            "p99_ms": _milliseconds(_quantile(buckets, 0.99)),
            "codes": {
                found["code"]: int(total)
                for found, total in now.of("calls_total")
                if found["method"] == method
            },
        }
    items = {
        labels["status"]: {"total": int(total), "per_second": rate("items_total", total, labels)}
        for labels, total in now.of("items_total")
    }
    pools: dict[str, dict[str, int]] = {}
    for field, name in _POOL.items():
        for labels, count in now.of(name):
            pools.setdefault(labels["pool"], {})[field] = int(count)
    cache = {field: int(value) for field, name in _CACHE.items() if (value := now.get(name)) is not None}
    asked = cache.get("hits", 0) + cache.get("misses", 0)
    return {
        "interval_seconds": seconds,
        "in_flight": sum(call["in_flight"] for call in calls.values()),
        "calls": calls,
        "items": items,
        "pools": pools,
        "cache": {**cache, "hit_rate": cache.get("hits", 0) / asked if asked else None},
    }


def _buckets(now: Sample, before: Sample | None, method: str) -> list[tuple[float, float]]:
    """(upper bound in seconds, calls up to it), rising."""
    found = []
    for labels, count in now.of("call_seconds_bucket"):
        if labels["method"] == method:
            earlier = before.get("call_seconds_bucket", **labels) if before is not None else None
            found.append((float(labels["le"]), count - (earlier or 0.0)))
    return sorted(found)


def _quantile(buckets: list[tuple[float, float]], share: float) -> float | None:
    """Seconds, interpolated within a bucket; the last finite bound where it lies beyond."""
    total = buckets[-1][1] if buckets else 0.0
    if total <= 0:
        return None
    rank = share * total
    lower, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (rank - below) / max(count - below, 1e-9)
        lower, below = bound, count
    return lower


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(1e3 * seconds, 3)


def show_report(report: Mapping[str, Any]) -> str:
    """The report for people, in lines."""

    def number(value: float | None, width: int) -> str:
        return f"{'-' if value is None else f'{value:.1f}':>{width}}"

    lines = [
        f"{report['in_flight']} calls in flight",
        "",
        f"{'call':<24}{'now':>6}{'/s':>10}{'p50 ms':>10}{'p99 ms':>10}  codes",
    ]
    for method, call in report["calls"].items():
        codes = ", ".join(f"{code} {count}" for code, count in sorted(call["codes"].items()))
        lines.append(
            f"{method:<24}{call['in_flight']:>6}{number(call['per_second'], 10)}"
            f"{number(call['p50_ms'], 10)}{number(call['p99_ms'], 10)}  {codes}"
        )
    lines += ["", f"{'items':<24}{'total':>12}{'/s':>10}"]
    for status, item in sorted(report["items"].items()):
        lines.append(f"{status:<24}{item['total']:>12}{number(item['per_second'], 10)}")
    for pool, counts in report["pools"].items():
        lines += [
            "",
            f"workers of {pool}: {counts['alive']} of {counts['workers']} up, {counts['restarts']} restarts, "
            f"{counts['crashes']} crashes; items: {counts['in_flight']} at work, {counts['waiting']} waiting, "
            f"{counts['quarantined']} in quarantine",
        ]
    cache = report["cache"]
    if cache["hit_rate"] is not None:
        lines += [
            "",
            f"cache: {cache['hits']} hits, {cache['misses']} misses ({100 * cache['hit_rate']:.1f} % hits), "
            f"{cache['entries']} automata",
        ]
    return "\n".join(lines)
