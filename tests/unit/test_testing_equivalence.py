"""The kit does what a service does: one script through it, and through a real dispatcher."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from penstock import App, Batch, Poison, Record, Retry, dead_letter, skip
from penstock.board import Board
from penstock.letters import PREFIX, Letter, headers
from penstock.offsets import Position
from penstock.plan import plans
from penstock.record import Partition
from penstock.signature import Handler
from penstock.telemetry.tally import Tally
from penstock.testing import Kit
from penstock.worker.dispatch import Dispatcher
from tests.unit.making import PATIENCE

pytestmark = pytest.mark.usefixtures("no_log")

PARTITIONS, RECORDS, KEYS = 4, 40, 5


class Script:
    """What each record's handler does, try by try; and what it was given, in order."""

    def __init__(self, seed: int) -> None:
        random = Random(seed)
        self._plan: dict[tuple[int, int], list[str]] = {
            (p, o): random.choices(["fail", "poison"], [8, 1], k=random.choice((0, 0, 0, 1, 2, 5)))
            for p in range(PARTITIONS)
            for o in range(RECORDS)
        }
        self._lock = threading.Lock()
        self.given: dict[tuple[object, ...], list[tuple[int, ...]]] = defaultdict(list)

    def play(self, records: list[Record], by: Callable[[Record], object]) -> None:
        with self._lock:
            first = records[0]
            self.given[first.partition, by(first)].append(tuple(r.offset for r in records))
            for index, record in enumerate(records):
                todo = self._plan[record.partition, record.offset]
                if todo:
                    if todo.pop(0) == "poison":
                        raise Poison("never", index=index)
                    raise ValueError(f"not today: {record}")


def key_of(record: Record) -> bytes:
    return b"%d" % ((record.offset * 7 + record.partition) % KEYS)


def make_app(script: Script, *, kind: str, **options: Any) -> App:
    """``kind``: plain, coroutine, batch."""
    app = App(bootstrap_servers="broker:9092")
    by_key: Callable[[Record], object] = (
        (lambda r: r.key) if options.get("order_by") == "key" else lambda _: None
    )

    def plain(record: Record) -> None:
        script.play([record], by_key)

    async def coroutine(record: Record) -> None:
        await asyncio.sleep(0.001)
        script.play([record], by_key)

    def batch(records: list[Record]) -> None:
        script.play(records, by_key)

    handlers: dict[str, Handler] = {"plain": plain, "coroutine": coroutine, "batch": batch}
    retry = Retry(attempts=3, first=0.002, limit=0.004)
    if kind == "batch":
        options["batch"] = Batch(count=7)
    app.subscribe("orders", group="billing", retry=retry, **options)(handlers[kind])
    return app


Seen = tuple[dict[Any, Any], dict[str, int], list[Any], dict[Partition, Position]]


def without_circumstances(given: list[Any]) -> list[Any]:
    """Tracebacks and times differ between two runs, as they must."""
    return [h for h in given if h[0] not in (PREFIX + "traceback", PREFIX + "at")]


def through_the_kit(script: Script, app: App, seed: int | None) -> Seen:
    kit = Kit(app, seed=seed)
    for partition in range(PARTITIONS):
        for offset in range(RECORDS):
            record = Record("orders", partition, offset, 0, None, None, ())
            kit.send("orders", b"", key=key_of(record), partition=partition, timestamp=1_000)
    kit.run()
    dead = app.subscriptions[0].then.topic
    letters = kit.dead_letters() if dead else []
    return (
        dict(script.given),
        {name: n for name, n in kit.counts.items() if n},
        sorted((r.key, without_circumstances(list(r.headers))) for r in letters),
        kit.commits,
    )


def through_a_dispatcher(script: Script, app: App) -> Seen:
    [plan] = plans(app)
    letters: list[Letter] = []

    def post(letter: Letter, done: Callable[[Exception | None], None]) -> None:
        letters.append(letter)
        done(None)

    board, tally = Board.create(plan.concurrency), Tally()
    dispatcher = Dispatcher(plan, board, tally, post)
    owned = [Partition("orders", n) for n in range(PARTITIONS)]
    dispatcher.assigned(dict.fromkeys(owned))
    fetched = {
        p: [Record("orders", p.number, o, 1_000, None, b"", ()) for o in range(RECORDS)]
        for p in owned
    }
    dispatcher.feed({p: [r._replace(key=key_of(r)) for r in fetched[p]] for p in owned})
    dispatcher.start()
    until = time.monotonic() + PATIENCE
    while dispatcher.waiting and time.monotonic() < until:
        time.sleep(0.01)
    assert dispatcher.wait_idle(PATIENCE)
    positions = dispatcher.committable()
    dispatcher.drain()
    assert dispatcher.end(PATIENCE)
    board.close()
    counts = tally.to_json()["topics"]["orders"]["records"]
    return (
        dict(script.given),
        {name: n for name, n in counts.items() if n},
        sorted((x.record.key, without_circumstances(headers(x))) for x in letters),
        positions,
    )


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("kind", "order_by"),
    [
        ("plain", "partition"),
        ("plain", "key"),
        ("coroutine", "partition"),
        ("coroutine", "key"),
        ("batch", "partition"),
    ],
)
@pytest.mark.parametrize("then", [dead_letter("orders.dead"), skip()], ids=["dead", "skip"])
def test_the_same_script_has_the_same_outcome(
    seed: int, kind: str, order_by: str, then: Any
) -> None:
    seen = []
    for run in (lambda s, a: through_the_kit(s, a, seed), through_a_dispatcher):
        script = Script(seed)
        app = make_app(script, kind=kind, order_by=order_by, concurrency=4, then=then)
        seen.append(run(script, app))
    kit, service = seen
    assert kit == service
    given, counts, letters, positions = kit
    assert len(given) == PARTITIONS * (KEYS if order_by == "key" else 1)
    assert counts["retried"] > 10
    assert counts["done"] + counts.get("dead_lettered", 0) + counts.get("skipped", 0) == (
        PARTITIONS * RECORDS
    )
    assert len(letters) == counts.get("dead_lettered", 0)
    assert set(positions.values()) == {Position(RECORDS)}
