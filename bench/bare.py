"""The yardstick: a bare kafka-python poll loop with the options that a worker uses.

``python -m bench.bare BOOTSTRAP TOPIC GROUP TOTAL RESULT``. It commits as often as a worker.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from kafka import KafkaConsumer

from penstock.kafka.config import consumer_options
from penstock.settings import Settings


def main(argv: list[str]) -> None:
    """Count records until there are TOTAL of them; write seconds and CPU seconds."""
    bootstrap, topic, group, total, result = argv
    settings = Settings.model_validate({"bootstrap_servers": bootstrap})
    consumer = KafkaConsumer(**consumer_options(settings, group, None))
    consumer.subscribe(topics=[topic])
    count, first, cpu, due = 0, 0.0, 0.0, 0.0
    while count < int(total):
        fetched = consumer.poll(timeout_ms=1000, max_records=settings.max_poll_records)
        if fetched and not count:
            first, cpu = time.monotonic(), time.process_time()
        for batch in fetched.values():
            count += len(batch)
        if time.monotonic() >= due:
            due = time.monotonic() + settings.commit_interval
            if count:
                consumer.commit_async()
    Path(result).write_text(f"{time.monotonic() - first} {time.process_time() - cpu}")
    consumer.close(autocommit=False)


if __name__ == "__main__":
    main(sys.argv[1:])
