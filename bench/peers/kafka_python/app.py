"""The bare kafka-python loop: handle a batch, commit once a second, TERM ends after the batch."""

from __future__ import annotations

import signal
import threading
import time

from kafka import KafkaConsumer

from bench.peers.meter import BOOTSTRAP, GROUP, TOPIC, WORK, note, one_at_a_time


def main() -> None:
    one_at_a_time()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    consumer = KafkaConsumer(
        TOPIC,
        bootstrap_servers=BOOTSTRAP,
        group_id=GROUP,
        auto_offset_reset="earliest",  # the backlog was there before the group
        enable_auto_commit=False,  # what was handled, not what was fetched
    )
    due, pending = 0.0, False
    while not stopping.is_set():
        fetched = consumer.poll(timeout_ms=1000, max_records=500)  # 500 is the default
        for batch in fetched.values():
            for record in batch:
                if WORK:
                    time.sleep(WORK)
                note(record.value)
        pending = pending or bool(fetched)
        if pending and time.monotonic() >= due:  # each batch's would cost a round trip
            consumer.commit()  # all that poll() gave has been handled
            due, pending = time.monotonic() + 1, False
    if pending:
        consumer.commit()
    consumer.close(autocommit=False)


if __name__ == "__main__":
    main()
