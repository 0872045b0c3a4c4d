"""A handler that waits 10 ms, 256 at a time, in order by key: how much of the ideal is reached.

The ideal is 256 / 10 ms = 25,600 records a second. What asyncio alone reaches on this machine,
256 tasks that do nothing but sleep, stands beside it.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

from bench.throughput import groups, read
from bench.tools import fill, table
from devtools.broker import Admin, Broker
from devtools.service import Service

CONCURRENCY = 256
WORK = 0.01
IDEAL = CONCURRENCY / WORK
KEYS = 1_000
ROUNDS = 3
TOTALS = {"async_sleeping": 200_000, "sleeping": 100_000}
PARTITIONS = 12


async def _sleepers(each: int) -> float:
    async def sleeper() -> None:
        for _ in range(each):
            await asyncio.sleep(WORK)

    began = time.monotonic()
    await asyncio.gather(*(sleeper() for _ in range(CONCURRENCY)))
    return CONCURRENCY * each / (time.monotonic() - began)


def _served(bootstrap: str, app: str, total: int, directory: Path) -> tuple[float, float]:
    result = directory / app
    result.unlink(missing_ok=True)
    service = Service(
        f"bench.apps:{app}",
        directory / f"concurrency-{next(groups)}",
        env={
            "BENCH_TOTAL": str(total),
            "BENCH_RESULT": str(result),
            "BENCH_CONCURRENCY": str(CONCURRENCY),
            "BENCH_WORK": str(WORK),
        },
        bootstrap_servers=bootstrap,
        topics="bench",
        group_id=f"{app}-{next(groups)}",
    )
    with service:
        service.until(result.exists, "all records", 180)
        service.stop()
    return read(result, total)


def main() -> None:
    """Print a row for coroutines and one for threads."""
    with Broker() as broker, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        Admin(broker.bootstrap).create_topic("bench", PARTITIONS)
        fill(broker.bootstrap, "bench", PARTITIONS, max(TOTALS.values()), 100, keys=KEYS)
        alone: list[float] = []
        got: dict[str, list[tuple[float, float]]] = {app: [] for app in TOTALS}
        for _ in range(ROUNDS):
            alone.append(asyncio.run(_sleepers(200)))
            for app, total in TOTALS.items():
                got[app].append(_served(broker.bootstrap, app, total, directory))
    print(
        f"handler of {WORK * 1000:.0f} ms, concurrency {CONCURRENCY}, {KEYS:,} keys, "
        f"{PARTITIONS} partitions, {os.cpu_count()} cores, medians of {ROUNDS} rounds in turns\n"
    )
    rows: list[tuple[str, float, str]] = [("asyncio alone, no Kafka", statistics.median(alone), "")]
    for app, results in got.items():
        way = "coroutines" if app == "async_sleeping" else "threads"
        cpu = statistics.median(used for _, used in results)
        rows.append((way, statistics.median(rate for rate, _ in results), f"{cpu:.0f}"))
    table(
        ("way", "records/s", f"share of the ideal {IDEAL:,.0f}", "CPU µs a record"),
        ((way, f"{rate:,.0f}", f"{rate / IDEAL:.0%}", cpu) for way, rate, cpu in rows),
    )
