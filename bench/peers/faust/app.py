"""faust-streaming: an agent on a raw topic."""

import asyncio
from typing import Any

import faust

from bench.peers.meter import BOOTSTRAP, CONCURRENCY, GROUP, TOPIC, WORK, note

app = faust.App(
    GROUP,
    broker=f"kafka://{BOOTSTRAP}",
    value_serializer="raw",  # values are no JSON
    key_serializer="raw",
    topic_disable_leader=True,  # nothing here runs on a leader only
    web_enabled=False,  # no port of its own
    # earliest, an acknowledgement after each event, commits each 2.8 s and waiting for the
    # event at work when it stops (stream_wait_empty) are the defaults
)
topic = app.topic(TOPIC, value_type=bytes)


@app.agent(topic, concurrency=CONCURRENCY)
async def handle(stream: Any) -> None:
    async for value in stream:
        if WORK:
            await asyncio.sleep(WORK)
        note(value)


if __name__ == "__main__":
    app.main()
