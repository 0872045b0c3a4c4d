"""Many slow calls at once, in order for each customer: ``async def`` and ``order_by="key"``.

Run it from the repository, with a broker on port 9092 (``make kafka``)::

    PENSTOCK_BOOTSTRAP_SERVERS=localhost:9092 penstock run examples/coroutines.py:app
"""

import asyncio

from penstock import App, Record, Retry, dead_letter

app = App()
delivered: list[tuple[bytes | None, bytes | None]] = []


async def push(customer: bytes | None, message: bytes | None) -> None:
    """Stands for a call over HTTP: ``await client.post(…)``."""
    await asyncio.sleep(0.05)
    delivered.append((customer, message))


@app.subscribe(
    "messages",
    group="pusher",
    order_by="key",  # the records of a customer one after another, of all others side by side
    concurrency=256,
    timeout=10.0,
    retry=Retry(attempts=8),
    then=dead_letter("messages.dead"),
)
async def deliver(record: Record) -> None:
    await push(record.key, record.value)
