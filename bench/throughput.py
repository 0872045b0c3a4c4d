"""Throughput with a handler that does nothing, against the bare poll loop, in turns."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.tools import fill, table
from devtools.broker import Admin, Broker
from devtools.service import Service

PARTITIONS = 12
ROUNDS = 3
SIZES = {100: 300_000, 1000: 150_000}

groups = itertools.count()
"""Numbers for groups and directories that must be new ones."""


def bare(bootstrap: str, topic: str, total: int, directory: Path) -> tuple[float, float]:
    """Records a second and CPU µs a record of the bare loop."""
    result = directory / "bare"
    result.unlink(missing_ok=True)
    arguments = [bootstrap, topic, f"bare-{next(groups)}", str(total), str(result)]
    subprocess.run([sys.executable, "-m", "bench.bare", *arguments], check=True, timeout=180)
    return read(result, total)


def served(
    bootstrap: str, topic: str, total: int, app: str, directory: Path
) -> tuple[float, float]:
    """The same of a service with one worker."""
    result = directory / app
    result.unlink(missing_ok=True)
    service = Service(
        f"bench.apps:{app}",
        directory / f"service-{next(groups)}",
        env={"BENCH_TOTAL": str(total), "BENCH_RESULT": str(result)},
        bootstrap_servers=bootstrap,
        topics=topic,
        group_id=f"{app}-{next(groups)}",
    )
    with service:
        service.until(result.exists, "all records", 180)
        service.stop()
    return read(result, total)


def read(result: Path, total: int) -> tuple[float, float]:
    """Records a second and CPU µs a record, from what the app wrote."""
    took, cpu = map(float, result.read_text().split())
    return total / took, cpu / total * 1e6


def main() -> None:
    """Print a row a record size and a way of handling."""
    with Broker() as broker, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        rows = []
        for size, total in SIZES.items():
            topic = f"bench-{size}"
            Admin(broker.bootstrap).create_topic(topic, PARTITIONS)
            fill(broker.bootstrap, topic, PARTITIONS, total, size)
            got: dict[str, list[tuple[float, float]]] = {"bare": [], "batches": [], "records": []}
            for _ in range(ROUNDS):  # in turns, so that all of them see the same machine
                got["bare"].append(bare(broker.bootstrap, topic, total, directory))
                for app in ("batches", "records"):
                    got[app].append(served(broker.bootstrap, topic, total, app, directory))
            base = [rate for rate, _ in got["bare"]]
            bare_us = statistics.median(1e6 / rate for rate in base)
            for way, results in got.items():
                rates = [rate for rate, _ in results]
                ratio = statistics.median(r / b for r, b in zip(rates, base, strict=True))
                rate = statistics.median(rates)
                rows.append(
                    (
                        f"{size} B",
                        way,
                        f"{rate:,.0f}",
                        f"{ratio:.2f}",
                        f"{1e6 / rate - bare_us:+.2f}",
                        f"{statistics.median(cpu for _, cpu in results):.1f}",
                    )
                )
    print(f"{ROUNDS} rounds in turns, {PARTITIONS} partitions, {os.cpu_count()} cores, medians\n")
    table(
        ("record", "way", "records/s", "ratio to bare", "µs on top", "CPU µs a record"),
        rows,
    )
