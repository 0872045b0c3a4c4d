"""The bare confluent-kafka loop: as kafka_python/app.py, on librdkafka."""

from __future__ import annotations

import signal
import threading
import time

from confluent_kafka import Consumer, KafkaException

from bench.peers.meter import BOOTSTRAP, GROUP, TOPIC, WORK, note, one_at_a_time


def main() -> None:
    one_at_a_time()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    consumer = Consumer(
        {
            "bootstrap.servers": BOOTSTRAP,
            "group.id": GROUP,
            "auto.offset.reset": "earliest",  # the backlog was there before the group
            "enable.auto.commit": False,  # what was handled, not what was fetched
        }
    )
    consumer.subscribe([TOPIC])
    due, pending = 0.0, False
    while not stopping.is_set():
        batch = consumer.consume(500, timeout=1.0)  # poll() one by one takes twice the CPU
        for message in batch:
            if message.error():
                raise KafkaException(message.error())
            if WORK:
                time.sleep(WORK)
            note(message.value())
        pending = pending or bool(batch)
        if pending and time.monotonic() >= due:  # each batch's would cost a round trip
            consumer.commit(asynchronous=False)  # all that consume() gave has been handled
            due, pending = time.monotonic() + 1, False
    if pending:
        consumer.commit(asynchronous=False)
    consumer.close()


if __name__ == "__main__":
    main()
