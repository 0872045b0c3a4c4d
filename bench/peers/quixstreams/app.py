"""Quix Streams: a side effect a message, on a raw topic."""

from __future__ import annotations

import time

from quixstreams import Application

from bench.peers.meter import BOOTSTRAP, GROUP, TOPIC, WORK, note, one_at_a_time


def handle(value: bytes) -> None:
    if WORK:
        time.sleep(WORK)
    note(value)


def main() -> None:
    one_at_a_time()
    app = Application(
        broker_address=BOOTSTRAP,
        consumer_group=GROUP,
        auto_offset_reset="earliest",  # the backlog was there before the group
        loglevel="WARNING",
        # processing_guarantee="at-least-once" and a checkpoint each 5 s are the defaults
    )
    topic = app.topic(TOPIC, value_deserializer="bytes")  # values are no JSON
    app.dataframe(topic).update(handle)
    app.run()


if __name__ == "__main__":
    main()
