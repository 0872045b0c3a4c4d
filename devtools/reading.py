"""Reads a topic from its start to its end, with an independent client (librdkafka)."""

from __future__ import annotations

import time

import confluent_kafka
from confluent_kafka import TopicPartition

from devtools.broker import Admin

_TIMEOUT = 20.0


def read(bootstrap: str, topic: str) -> list[confluent_kafka.Message]:
    """Every record that is there now, partition by partition."""
    ends = Admin(bootstrap).end_offsets(topic)
    left = {number for number, end in ends.items() if end}
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"reading-{topic}",
            "enable.auto.commit": False,
            "enable.partition.eof": False,
            "fetch.message.max.bytes": 32_000_000,
        }
    )
    found: list[confluent_kafka.Message] = []
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in left])
        until = time.monotonic() + _TIMEOUT
        while left:
            if time.monotonic() > until:
                raise TimeoutError(f"partitions {left} of {topic} were not read to their ends")
            for message in consumer.consume(500, 0.2):
                if message.error() is not None:
                    continue
                found.append(message)
                if (message.offset() or 0) + 1 >= ends[message.partition() or 0]:
                    left.discard(message.partition() or 0)
    finally:
        consumer.close()
    return sorted(found, key=lambda m: (m.partition() or 0, m.offset() or 0))
