"""Memory of supervisor and worker: idle, and before a backlog of records of several sizes.

The peaks are what the formula's figures (``penstock.memory``) are rounded up from.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.tools import fill, table
from devtools.broker import Admin, Broker
from devtools.service import Service
from penstock.memory import MB, bound_of
from penstock.settings import Settings

#: Records handled before the look, so that every buffer has filled up.
WELL_INTO = 400


@dataclass(frozen=True, slots=True)
class Case:
    """A backlog of ``count`` records of ``size`` bytes, and seconds of work for each."""

    name: str
    count: int
    size: int
    partitions: int
    work: float = 0.02


CASES = (
    Case("idle", 0, 0, 12),
    Case("100 B", 1_000_000, 100, 12, work=0.001),
    Case("10 kB", 20_000, 10_000, 12),
    Case("1 MB", 900, 999_000, 12),
    Case("1 MB", 900, 999_000, 60),
)


def resident(pid: int) -> tuple[float, float, float]:
    """MB resident, of that not shared with others (proportional), and the most it ever was."""
    rollup, status = (_fields(Path(f"/proc/{pid}/{name}")) for name in ("smaps_rollup", "status"))
    return rollup["Rss"], rollup["Pss"], status["VmHWM"]


def _fields(path: Path) -> dict[str, float]:
    """``Name: 123 kB`` → MB."""
    return {
        name: int(rest.split()[0]) * 1024 / MB
        for line in path.read_text().splitlines()
        for name, _, rest in [line.partition(":")]
        if rest.endswith(" kB")
    }


def _measured(broker: Broker, directory: Path) -> Iterator[tuple[object, ...]]:
    for number, case in enumerate(CASES):
        topic = f"memory-{number}"
        Admin(broker.bootstrap).create_topic(topic, case.partitions)
        if case.count:
            fill(broker.bootstrap, topic, case.partitions, case.count, case.size)
        ledger = directory / f"{topic}.ledger"
        service = Service(
            "devtools.apps.ledger:app",
            directory / topic,
            env={"LEDGER": str(ledger), "LEDGER_SLEEP": str(case.work)},
            bootstrap_servers=broker.bootstrap,
            topics=topic,
            group_id=topic,
        )
        with service:
            service.until_ready(60)
            if case.count:
                service.until(
                    lambda f=ledger: f.exists() and f.read_bytes().count(b"\n") > WELL_INTO,  # type: ignore[misc]
                    "records",
                    120,
                )
            (worker,) = service.workers()
            both = resident(service.pid), resident(worker)
            service.stop()
        for who, found in zip(("supervisor", "worker"), both, strict=True):
            yield (case.name, case.partitions, who, *(f"{mb:.0f}" for mb in found))


def main() -> None:
    """Print a row each."""
    with Broker() as broker, tempfile.TemporaryDirectory() as name:
        rows = list(_measured(broker, Path(name)))
    table(("records", "partitions", "process", "RSS MB", "PSS MB", "peak MB"), rows)
    settings = Settings.model_validate({"bootstrap_servers": "kafka:9092"})
    print(f"\nBound without handlers: {bound_of(settings, subscriptions=1, handlers=0)}")
