"""A constant stream of numbered records, made by an independent client (librdkafka).

Each record's value is ``<partition> <sequence>`` padded to ``size`` bytes, its key the
partition's number; sequences count from 0 in each partition, so that a checker can tell
loss, repetition and disorder from the handlers' notes alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import confluent_kafka


class Stream:
    """Produces round-robin over the partitions, ``rate`` records a second, until stopped."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        partitions: int,
        *,
        rate: float,
        size: int = 0,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """``config``: more librdkafka settings (a codec, say)."""
        self.topic = topic
        self.partitions = partitions
        self._rate = rate
        self._size = size
        self._sent = [0] * partitions
        self.confirmed = [0] * partitions
        self._stop = threading.Event()
        self._producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": bootstrap,
                "linger.ms": 5,
                "enable.idempotence": True,
                "log_level": 0,  # a broker that goes away is the tests' doing, and no news
                **dict(config or {}),
            }
        )
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)

    def start(self) -> Stream:
        """Start producing."""
        self._thread.start()
        return self

    @property
    def produced(self) -> int:
        """Records that the broker has confirmed."""
        return sum(self.confirmed)

    def stop(self, expected: Path | None = None) -> int:
        """Stop, wait for every confirmation, write what the checker is to expect."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(60)
        left = self._producer.flush(60)
        if left:
            raise RuntimeError(f"{left} records were never confirmed")
        if expected is not None:
            expected.write_text("".join(f"{p} {n}\n" for p, n in enumerate(self.confirmed)))
        return self.produced

    def close(self) -> None:
        """End the thread, if it runs; of a test that failed, nothing is expected any more."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(10)

    def send(self, count: int) -> Stream:
        """Produce ``count`` records at once (instead of ``start``)."""
        for i in range(count):
            self._one(i % self.partitions)
        self._producer.flush(60)
        return self

    def _run(self) -> None:
        began, sent = time.monotonic(), 0
        while not self._stop.is_set():
            due = int((time.monotonic() - began) * self._rate)
            while sent < due:
                self._one(sent % self.partitions)
                sent += 1
            self._producer.poll(0)
            self._stop.wait(0.01)

    def _one(self, partition: int) -> None:
        value = f"{partition} {self._sent[partition]}".encode()
        self._produce(partition, str(partition).encode(), value.ljust(self._size))

    def _produce(
        self,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        while True:
            try:
                self._producer.produce(
                    self.topic,
                    key=key,
                    value=value,
                    partition=partition,
                    headers=list(headers),
                    on_delivery=self._delivered,
                )
                break
            except BufferError:
                self._producer.poll(0.1)
        self._sent[partition] += 1

    def _delivered(self, error: object, message: confluent_kafka.Message) -> None:
        if error is None:
            self.confirmed[message.partition() or 0] += 1
