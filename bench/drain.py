"""USR2 to exit, minus the longest handler in flight, over 50 restarts under load."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

from bench.tools import percentile, table
from devtools.broker import Admin, Broker
from devtools.service import Service
from devtools.stream import Stream

RESTARTS = 50
HANDLER = 0.005


def restarts(
    broker: Broker, directory: Path, topic: str, rate: float
) -> tuple[list[float], list[float]]:
    """Seconds from signal to exit, and to the end of the drain as the service tells it."""
    Admin(broker.bootstrap).create_topic(topic, 12)
    stream = Stream(broker.bootstrap, topic, 12, rate=rate).start() if rate else None
    service = Service(
        "devtools.apps.ledger:app",
        directory / topic,
        env={"LEDGER": str(directory / f"{topic}.ledger"), "LEDGER_SLEEP": str(HANDLER)},
        bootstrap_servers=broker.bootstrap,
        topics=topic,
        group_id=topic,
    )
    times, drains = [], []
    ledger = directory / f"{topic}.ledger"
    for _ in range(RESTARTS):
        size = ledger.stat().st_size if ledger.exists() else 0
        service.start().until_ready(60)
        if rate:
            service.until(lambda s=size: ledger.stat().st_size > s, "work")  # type: ignore[misc]
        began = time.monotonic()
        service.send(signal.SIGUSR2)
        code = service.wait()
        times.append(time.monotonic() - began - (HANDLER if rate else 0))
        assert code == 4, code
        drains.append(float(service.exit_record()["drain_seconds"]))
    service.close()
    if stream is not None:
        stream.stop()
    return times, drains


def main() -> None:
    """Print idle and loaded."""
    rows = []
    with Broker() as broker, tempfile.TemporaryDirectory() as name:
        for what, rate in (("idle", 0), ("loaded", 150)):
            times, drains = restarts(broker, Path(name), what, rate)
            rows.append(
                (
                    what,
                    *(f"{percentile(times, p) * 1000:.0f}" for p in (0.5, 0.99)),
                    *(f"{percentile(drains, p) * 1000:.0f}" for p in (0.5, 0.99)),
                )
            )
    print(f"{RESTARTS} restarts each, handler of {HANDLER * 1000:.0f} ms, {os.cpu_count()} cores\n")
    table(("", "to exit p50 ms", "p99 ms", "of which drain p50 ms", "p99 ms"), rows)
