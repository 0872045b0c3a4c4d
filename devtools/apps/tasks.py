"""Handlers of every kind, which do what each record's headers say, and note when.

``TASKS`` in the environment is a JSON list of subscriptions (:class:`devtools.tasks.Reader`).
What a record asks for is in its headers (:class:`devtools.tasks.Task`), so that the values
are free to be anything, a damaged JSON text included.

A ledger's lines are ``what partition offset key pid monotonic-time``: ``B`` as the handler
begins with a record, ``D`` when it is done, ``F`` when it failed. :mod:`devtools.spans`
judges them, and shares nothing else with this.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from penstock import App, Batch, Breaker, Poison, Record, Retry, dead_letter, skip, stop

_PID = os.getpid()
_THEN: dict[str, Callable[..., Any]] = {"dead_letter": dead_letter, "skip": skip, "stop": stop}

app = App()


class Order(BaseModel):
    """What a value has to be for the handlers of kind ``model``."""

    amount: int


class Ledger:
    """Where one subscription's handlers note."""

    def __init__(self, path: str, trouble: str | None) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        #: While this file is there, every handler fails.
        self._trouble = Path(trouble) if trouble else None
        self._tries: Counter[tuple[str, int, int]] = Counter()

    def _note(self, what: bytes, records: Sequence[Record]) -> None:
        now = time.monotonic()
        lines = [
            b"%s %d %d %s %d %.6f\n" % (what, r.partition, r.offset, r.key or b"-", _PID, now)
            for r in records
        ]
        os.write(self._file, b"".join(lines))  # one call: a KILL leaves all of it or nothing

    @contextmanager
    def span(self, records: Sequence[Record]) -> Iterator[None]:
        """Note the beginning, and how it ended."""
        self._note(b"B", records)
        try:
            yield
        except BaseException:
            self._note(b"F", records)
            raise
        self._note(b"D", records)

    def steps(self, record: Record) -> Iterator[float]:
        """Do what the record asks for; yields seconds to sleep."""
        asked = {name: value or b"" for name, value in record.headers}
        at = (record.topic, record.partition, record.offset)
        self._tries[at] += 1
        if "sleep" in asked:
            yield float(asked["sleep"])
        if self._tries[at] <= int(asked.get("hangs", 0)):
            for _ in range(600):  # in pieces: a time limit cannot reach into one long sleep
                yield 0.1
        if self._tries[at] <= int(asked.get("fails", 0)):
            raise RuntimeError(f"try {self._tries[at]} was to fail")
        if self._trouble is not None and self._trouble.exists():
            raise RuntimeError("trouble")
        if "dies" in asked:
            _die(asked["dies"].decode())
        if "poison" in asked:
            raise Poison(asked["poison"].decode())

    def do(self, records: Sequence[Record]) -> None:
        """Handle records, as plain code does."""
        with self.span(records):
            for record in records:
                for seconds in self.steps(record):
                    time.sleep(seconds)

    async def do_async(self, records: Sequence[Record]) -> None:
        """Handle records, as asynchronous code does."""
        with self.span(records):
            for record in records:
                for seconds in self.steps(record):
                    await asyncio.sleep(seconds)


def _die(how: str) -> None:
    if how == "exit":
        os._exit(0)
    os.kill(os.getpid(), signal.Signals[how])
    time.sleep(60)  # nobody returns from that


def _plain(ledger: Ledger, kind: str) -> Callable[..., Any]:
    def one(record: Record) -> None:
        ledger.do([record])

    def batch(records: list[Record]) -> None:
        ledger.do(records)

    def model(order: Order, record: Record) -> None:
        assert isinstance(order.amount, int)
        ledger.do([record])

    kinds: dict[str, Callable[..., Any]] = {"record": one, "batch": batch, "model": model}
    return kinds[kind]


def _asynchronous(ledger: Ledger, kind: str) -> Callable[..., Any]:
    async def one(record: Record) -> None:
        await ledger.do_async([record])

    async def batch(records: list[Record]) -> None:
        await ledger.do_async(records)

    async def model(order: Order, record: Record) -> None:
        assert isinstance(order.amount, int)
        await ledger.do_async([record])

    kinds: dict[str, Callable[..., Any]] = {"record": one, "batch": batch, "model": model}
    return kinds[kind]


def _subscribe(reader: dict[str, Any]) -> None:
    options = dict(reader["options"])
    for name, make in (("retry", Retry), ("breaker", Breaker), ("batch", Batch)):
        if name in options:
            options[name] = make(**options[name])
    if "then" in options:
        name, *arguments = options["then"]
        options["then"] = _THEN[name](*arguments)
    ledger = Ledger(reader["ledger"], reader["trouble"])
    make_handler = _asynchronous if reader["asynchronous"] else _plain
    handler = make_handler(ledger, reader["kind"])
    app.subscribe(reader["topic"], group=reader["group"], **options)(handler)


for _reader in json.loads(os.environ["TASKS"]):
    _subscribe(_reader)
