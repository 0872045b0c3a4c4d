"""What the benchmarks share: percentiles, tables, filling a topic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import confluent_kafka


def percentile(values: Iterable[float], share: float) -> float:
    """The nearest-rank percentile (``share`` in 0…1)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print Markdown."""
    print("| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def fill(
    bootstrap: str,
    topic: str,
    partitions: int,
    count: int,
    size: int,
    *,
    keys: int = 0,
    value: bytes = b"0 0",
) -> None:
    """Put ``count`` records of ``size`` bytes into a topic, with so many different keys."""
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 20,
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": 500_000,
        }
    )
    value = value.ljust(size, b" ")  # "0 0": what the ledger handler takes for its two numbers
    for i in range(count):
        key = str(i % keys).encode() if keys else None
        while True:
            try:
                if key is None:
                    producer.produce(topic, value=value, partition=i % partitions)
                else:
                    producer.produce(topic, value=value, key=key)  # its partition follows from it
                break
            except BufferError:
                producer.poll(0.1)
        if i % 10_000 == 0:
            producer.poll(0)
    if producer.flush(120):
        raise RuntimeError("the broker did not take all records")
