"""What each handler kind costs a record on top of the bare poll loop, in turns; CPU-bound work.

The handlers do nothing but count. Records are JSON of 100 bytes, so that all of them can be
decoded by those that decode.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from bench.throughput import bare, served
from bench.tools import fill, table
from devtools.broker import Admin, Broker
from devtools.service import Service

PARTITIONS = 12
ROUNDS = 3
TOTAL = 100_000
VALUE = b'{"id": 17, "item": "a thing of some length", "price": 12.5}'
WAYS = {
    "batches": "list[Record]",
    "records": "Record",
    "typeddicts": "TypedDict",
    "dataclasses": "dataclass",
    "models": "pydantic model",
    "model_batches": "list[pydantic model]",
    "async_records": "async, Record",
    "async_batches": "async, list[Record]",
    "by_key": 'Record, order_by="key"',
    "async_by_key": 'async, Record, order_by="key"',
    "unordered": 'Record, order_by="none"',
}


def main() -> None:
    """Print a row a handler kind, then CPU-bound work on one worker and on two."""
    with Broker() as broker, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        Admin(broker.bootstrap).create_topic("bench", PARTITIONS)
        fill(broker.bootstrap, "bench", PARTITIONS, TOTAL, 100, keys=1000, value=VALUE)
        took: dict[str, list[float]] = {way: [] for way in WAYS}
        cpu: dict[str, list[float]] = {way: [] for way in WAYS}
        base, base_cpu = [], []
        for _ in range(ROUNDS):  # in turns, so that all of them see the same machine
            rate, used = bare(broker.bootstrap, "bench", TOTAL, directory)
            base.append(1e6 / rate)
            base_cpu.append(used)
            for way in WAYS:
                rate, used = served(broker.bootstrap, "bench", TOTAL, way, directory)
                took[way].append(1e6 / rate - base[-1])
                cpu[way].append(used - base_cpu[-1])
        bare_us, bare_cpu = statistics.median(base), statistics.median(base_cpu)
        print(f"bare loop: {bare_us:.1f} µs a record, {bare_cpu:.1f} µs of CPU\n")
        table(
            ("handler", "µs on top", "CPU µs on top"),
            (
                (
                    name,
                    f"{statistics.median(took[way]):+.1f}",
                    f"{statistics.median(cpu[way]):+.1f}",
                )
                for way, name in WAYS.items()
            ),
        )
        print()
        table(("CPU-bound handler", "records/s", "ratio"), _cpu_bound(broker.bootstrap, directory))


def _cpu_bound(bootstrap: str, directory: Path) -> list[tuple[str, str, str]]:
    rates = [_computed(bootstrap, workers, directory) for workers in (1, 2)]
    return [
        (f"{workers} worker{'s' if workers > 1 else ''}", f"{rate:,.0f}", f"{rate / rates[0]:.2f}")
        for workers, rate in zip((1, 2), rates, strict=True)
    ]


def _computed(bootstrap: str, workers: int, directory: Path) -> float:
    """Records a second, between a tenth of them and nine tenths."""
    result = directory / f"computed-{workers}"
    counted = result.with_suffix(".count")
    service = Service(
        "bench.apps:computing",
        directory / f"cpu-{workers}",
        env={"BENCH_RESULT": str(result)},
        bootstrap_servers=bootstrap,
        topics="bench",
        group_id=f"cpu-{workers}",
        workers=workers,
    )

    def count() -> int:
        return counted.stat().st_size * 100 if counted.exists() else 0

    with service:
        service.until(lambda: count() >= TOTAL // 10, "a tenth", 120)
        began, first = time.monotonic(), count()
        service.until(lambda: count() >= TOTAL * 8 // 10, "eight tenths", 180)
        rate = (count() - first) / (time.monotonic() - began)
        service.stop()
    return rate
