"""FastStream on aiokafka.

The variant "batch" has a handler for lists. The variant "default" leaves acknowledgement and log
as they come: at most once, by automatic commits, and two lines a message.
"""

import asyncio
import logging

from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker

from bench.peers.meter import BOOTSTRAP, CONCURRENCY, GROUP, TOPIC, VARIANT, WORK, note

if VARIANT == "default":
    broker = KafkaBroker(BOOTSTRAP)
    options = {}
else:
    broker = KafkaBroker(
        BOOTSTRAP,
        log_level=logging.DEBUG,  # "Received" and "Processed" of each message stay unlogged
    )
    # The documentation's at-least-once: commit after the handler; seek back when it raised.
    options = {"ack_policy": AckPolicy.NACK_ON_ERROR}
if VARIANT == "batch":
    options |= {"batch": True, "max_records": 500}  # as many as the bare loops take

app = FastStream(broker)
subscriber = broker.subscriber(
    TOPIC,
    group_id=GROUP,
    auto_offset_reset="earliest",  # the backlog was there before the group
    max_workers=CONCURRENCY,
    **options,
)


async def handle(body: bytes) -> None:
    # Nothing but the body: a message injected from the context costs four times as much.
    if WORK:
        await asyncio.sleep(WORK)
    note(body)


async def handle_all(bodies: list[bytes]) -> None:
    for body in bodies:
        await handle(body)


subscriber(handle_all if VARIANT == "batch" else handle)

if __name__ == "__main__":
    asyncio.run(app.run())
