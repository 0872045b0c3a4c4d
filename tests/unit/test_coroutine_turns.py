"""A coroutine that never has to wait does not keep the loop from those that do."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from penstock.batching import Batch
from penstock.board import Board
from penstock.record import Record
from penstock.telemetry.tally import Tally
from penstock.worker.dispatch import Dispatcher
from tests.unit.making import PATIENCE, fresh, make_plan, orders, records

pytestmark = pytest.mark.usefixtures("no_log")

#: Records that are handled without waiting, a thousandth of a second each.
FAST = 300


class Handler:
    """Waits for a moment with partition 0's record; computes with all others."""

    def __init__(self) -> None:
        self.finished: list[int] = []
        self.over = threading.Event()

    async def __call__(self, given: Record | list[Record]) -> None:
        several = given if isinstance(given, list) else [given]
        if several[0].partition == 0:
            await asyncio.sleep(0.001)
        else:
            until = time.monotonic() + 0.001
            while time.monotonic() < until:
                pass
        self.finished += [record.partition for record in several]
        if len(self.finished) > FAST:
            self.over.set()


@pytest.mark.parametrize(
    "options",
    [{"order_by": "partition"}, {"order_by": "key"}, {"batch": Batch(count=1)}],
    ids=["partition", "key", "batches"],
)
def test_those_that_wait_get_their_turn(options: dict[str, Any]) -> None:
    handler = Handler()
    plan = make_plan(handler, concurrency=2, **options)
    board = Board.create(2)
    dispatcher = Dispatcher(plan, board, Tally())
    dispatcher.assigned(fresh(orders(0), orders(1)))
    dispatcher.feed({orders(0): records(0, 0), orders(1): records(1, *range(FAST))})
    dispatcher.start()
    assert handler.over.wait(PATIENCE * 4)
    dispatcher.drain()
    assert dispatcher.end(PATIENCE)
    board.close()
    # It asked for 1 ms, and was ready after one of 300: it must not have waited for all.
    assert handler.finished.index(0) < FAST / 2
