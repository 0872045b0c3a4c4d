"""The bare aiokafka loop: as kafka_python/app.py, on asyncio."""

from __future__ import annotations

import asyncio
import signal
import time

from aiokafka import AIOKafkaConsumer

from bench.peers.meter import BOOTSTRAP, GROUP, TOPIC, WORK, note, one_at_a_time


async def main() -> None:
    one_at_a_time()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=BOOTSTRAP,
        group_id=GROUP,
        auto_offset_reset="earliest",  # the backlog was there before the group
        enable_auto_commit=False,  # what was handled, not what was fetched
    )
    await consumer.start()
    due, pending = 0.0, False
    while not stopping.is_set():
        # getmany() once a batch costs a tenth of getone() once a record; the same 500 as others
        fetched = await consumer.getmany(timeout_ms=1000, max_records=500)
        for batch in fetched.values():
            for record in batch:
                if WORK:
                    await asyncio.sleep(WORK)
                note(record.value)
        pending = pending or bool(fetched)
        if pending and time.monotonic() >= due:  # each batch's would cost a round trip
            await consumer.commit()  # all that getmany() gave has been handled
            due, pending = time.monotonic() + 1, False
    if pending:
        await consumer.commit()
    await consumer.stop()


if __name__ == "__main__":
    asyncio.run(main())
