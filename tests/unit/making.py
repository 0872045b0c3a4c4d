"""What several unit tests need: settings, plans, records, and a handler that can be steered."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from penstock.app import App
from penstock.batching import Batch
from penstock.breaker import Breaker
from penstock.offsets import Position
from penstock.plan import Plan, plans
from penstock.policy import Last, Retry
from penstock.record import Partition, Record
from penstock.settings import Settings

PATIENCE = 5.0


def make_settings(**values: Any) -> Settings:
    return Settings(**{"bootstrap_servers": "broker:9092", **values})


def make_plan(
    handler: Callable[[Any], object],
    *,
    concurrency: int = 1,
    batch: bool | Batch = False,
    order_by: str = "partition",
    retry: Retry | None = None,
    then: Last | None = None,
    timeout: float | None = None,
    breaker: Breaker | None = None,
    **values: Any,
) -> Plan:
    """A plan for ``handler``; ``batch`` has it called with lists, whatever its signature says."""
    app = App(**{"bootstrap_servers": "broker:9092", **values})
    app.subscribe(
        "orders",
        group="billing",
        concurrency=concurrency,
        order_by=order_by,
        retry=retry,
        then=then,
        timeout=timeout,
        breaker=breaker,
    )(handler)
    [plan] = plans(app)
    if batch:
        bounds = batch if isinstance(batch, Batch) else plan.batch
        plan = dataclasses.replace(
            plan, kind=dataclasses.replace(plan.kind, batch=True), batch=bounds
        )
    return plan


def fresh(*partitions: Partition) -> dict[Partition, Position | None]:
    """An assignment of partitions for which the group has committed nothing."""
    return dict.fromkeys(partitions)


def orders(number: int) -> Partition:
    return Partition("orders", number)


def records(number: int, *offsets: int, epoch: int = 0, timestamp: int = 1_000) -> list[Record]:
    return [
        Record("orders", number, offset, timestamp, b"key-%d" % offset, b"%d" % epoch, ())
        for offset in offsets
    ]


@dataclass
class Work:
    """A handler that notes what it is given, and waits or raises where it is told to.

    ``blocked`` holds (partition, offset); a record named there waits in its handler until it
    is taken out (``release``). ``failing`` counts how often a record is still to raise.
    """

    blocked: set[tuple[int, int]] = field(default_factory=set)
    failing: Counter[tuple[int, int]] = field(default_factory=Counter)
    error: BaseException = field(default_factory=lambda: RuntimeError("not today"))
    started: list[Record] = field(default_factory=list)
    finished: list[Record] = field(default_factory=list)
    change: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, given: Record | list[Record]) -> None:
        several = given if isinstance(given, list) else [given]
        at = (several[0].partition, several[0].offset)
        with self.change:
            self.started.extend(several)
            self.change.notify_all()
            while at in self.blocked:
                self.change.wait(PATIENCE * 4)
            if self.failing[at]:
                self.failing[at] -= 1
                raise self.error
            self.finished.extend(several)
            self.change.notify_all()

    def release(self, *at: tuple[int, int]) -> None:
        """Let these go on; all without an argument."""
        with self.change:
            self.blocked.difference_update(at or set(self.blocked))
            self.change.notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the handler brings about."""
        with self.change:
            assert self.change.wait_for(condition, PATIENCE), (self.started, self.finished)

    def until_started(self, count: int) -> None:
        self.until(lambda: len(self.started) >= count)

    def until_finished(self, count: int) -> None:
        self.until(lambda: len(self.finished) >= count)

    def offsets(self, number: int) -> list[int]:
        """What was finished of one partition, in the order of finishing."""
        with self.change:
            return [r.offset for r in self.finished if r.partition == number]
