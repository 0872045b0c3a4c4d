"""The restart gap under load, and where it goes.

Last record before → first record after, from the ledger's own times; the parts from the
service's log (drain, start of the workers' interpreters, imports, connection, join, first
fetch).
"""

from __future__ import annotations

import os
import signal
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.tools import percentile, table
from devtools.broker import Admin, Broker
from devtools.service import Service
from devtools.stream import Stream

RESTARTS = 20


def _at(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(str(line["timestamp"])).timestamp()


def measure(broker: Broker, directory: Path, name: str, **settings: Any) -> dict[str, list[float]]:
    """Gaps and their parts, in seconds, over the restarts."""
    Admin(broker.bootstrap).create_topic(name, 12)
    stream = Stream(broker.bootstrap, name, 12, rate=500).start()
    ledger = directory / f"{name}.ledger"
    service = Service(
        "devtools.apps.ledger:app",
        directory / name,
        env={"LEDGER": str(ledger)},
        bootstrap_servers=broker.bootstrap,
        topics=name,
        group_id=name,
        **settings,
    )
    for _ in range(RESTARTS + 1):
        size = ledger.stat().st_size if ledger.exists() else 0
        service.start().until_ready(60)
        service.until(lambda s=size: ledger.stat().st_size > s, "work")  # type: ignore[misc]
        assert service.stop(signal.SIGUSR2) == 4
    stream.stop()
    service.close()

    parts: dict[str, list[float]] = {"gap": _gaps(ledger)}
    starts = service.log_lines("joined the group")[1:]
    for part in ("imports", "connect", "wait", "join"):
        parts[part] = [float(line[part]) for line in starts]
    parts["drain"] = [float(line["drain_seconds"]) for line in service.log_lines("exit")][:-1]
    known = [sum(values) for values in zip(*(parts[p] for p in parts if p != "gap"), strict=True)]
    parts["rest: exit, start of processes, first fetch"] = [
        gap - part for gap, part in zip(parts["gap"], known, strict=True)
    ]
    return parts


def _gaps(ledger: Path) -> list[float]:
    """Times between the last line of one worker and the first of the next."""
    gaps, last, pid = [], 0.0, ""
    for line in ledger.read_text().splitlines():
        fields = line.split()
        if pid and fields[3] != pid:
            gaps.append(float(fields[4]) - last)
        pid, last = fields[3], float(fields[4])
    return gaps


def main() -> None:
    """Print both kinds of membership."""
    rows = []
    with Broker() as broker, tempfile.TemporaryDirectory() as directory:
        kinds: dict[str, dict[str, Any]] = {"dynamic": {}, "static": {"instance_id": "bench"}}
        for name, settings in kinds.items():
            for part, values in measure(broker, Path(directory), name, **settings).items():
                shown = (f"{percentile(values, p) * 1000:.0f}" for p in (0.5, 0.99))
                rows.append((name if part == "gap" else "", part, *shown))
    print(f"{RESTARTS} restarts each, 500 records/s, 12 partitions, {os.cpu_count()} cores\n")
    table(("membership", "part", "p50 ms", "p99 ms"), rows)
