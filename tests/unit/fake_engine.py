"""A small engine behind the port: logs, pauses, positions and commits, without a broker.

Faithful where the worker depends on it: paused partitions bring nothing, an asynchronous
commit's outcome shows inside ``poll`` only, partitions that come are paused when the worker
says so, and ``close`` gives up what is owned. Faults are scripted: ``refusals`` is what the
next commits raise, ``on_poll`` is called at each poll.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping

from penstock.kafka.port import Membership, Rebalance
from penstock.offsets import Position
from penstock.record import Partition, Record
from penstock.seat import Seat


class FakeCommit:
    def __init__(self, offsets: Mapping[Partition, Position]) -> None:
        self.offsets = dict(offsets)
        self.result: Exception | bool = False

    def outcome(self) -> Exception | bool:
        return self.result


class FakeEngine:
    def __init__(self, rebalance: Rebalance) -> None:
        self.rebalance = rebalance
        self.log: dict[Partition, list[Record]] = {}
        self.position: dict[Partition, int] = {}
        #: Ends of the log that are beyond the last record (control records of transactions).
        self.tail: dict[Partition, int] = {}
        self.paused: set[Partition] = set()
        self.committed: dict[Partition, Position] = {}
        self.history: list[tuple[str, dict[Partition, Position]]] = []
        self.refusals: deque[Exception] = deque()
        self.always_refuse: Exception | None = None
        self.async_held = False
        self.on_poll: Callable[[], None] = lambda: None
        self.state = Membership.STABLE
        self.polls = 0
        self.closed: Seat | None = None
        self._under_way: list[FakeCommit] = []
        self._awake = threading.Event()

    # -- the broker's side -------------------------------------------------------------

    def write(self, partition: Partition, records: list[Record]) -> None:
        self.log.setdefault(partition, []).extend(records)

    def assign(self, *partitions: Partition) -> None:
        for partition in partitions:
            known = self.committed.get(partition)
            self.position[partition] = known.offset if known else 0
            self.paused.discard(partition)
        if self.rebalance.assigned({p: self.committed.get(p) for p in partitions}):
            self.paused.update(partitions)

    def lose(self, *partitions: Partition) -> None:
        for partition in partitions:
            self.position.pop(partition, None)
            self.paused.discard(partition)
        self.rebalance.lost(partitions)

    # -- the port ----------------------------------------------------------------------

    def poll(self, timeout: float, limit: int) -> Mapping[Partition, list[Record]]:
        assert self.closed is None, "polled after close"
        self.polls += 1
        self.on_poll()
        if not self.async_held:
            self._answer_commits()
        found: dict[Partition, list[Record]] = {}
        for partition, position in list(self.position.items()):
            if partition not in self.paused:
                ahead = [r for r in self.log.get(partition, []) if r.offset >= position][:limit]
                if ahead:
                    found[partition] = ahead
                    self.position[partition] = ahead[-1].offset + 1
                else:
                    self.position[partition] = max(position, self.tail.get(partition, 0))
        if not found:
            self._awake.wait(min(timeout, 0.005))
            self._awake.clear()
        return found

    def _answer_commits(self) -> None:
        for commit in self._under_way:
            if self.refusals:
                commit.result = self.refusals.popleft()
            else:
                self._take(commit.offsets)
                commit.result = True
        self._under_way.clear()

    def _take(self, offsets: Mapping[Partition, Position]) -> None:
        assert set(offsets) <= set(self.position), "committed what is not owned"
        self.committed.update(offsets)

    def pause(self, partitions: Collection[Partition]) -> None:
        self.paused.update(p for p in partitions if p in self.position)

    def resume(self, partitions: Collection[Partition]) -> None:
        self.paused.difference_update(partitions)

    def seek(self, partition: Partition, offset: int) -> None:
        if partition in self.position:
            self.position[partition] = offset

    def commit(self, offsets: Mapping[Partition, Position], timeout: float) -> None:
        assert self.closed is None, "committed after close"
        assert timeout > 0
        self.history.append(("sync", dict(offsets)))
        if self.always_refuse is not None:
            raise self.always_refuse
        if self.refusals:
            raise self.refusals.popleft()
        self._take(offsets)

    def commit_soon(self, offsets: Mapping[Partition, Position]) -> FakeCommit:
        assert not self._under_way, "one at a time"
        self.history.append(("async", dict(offsets)))
        commit = FakeCommit(offsets)
        self._under_way.append(commit)
        return commit

    def membership(self) -> Membership:
        return self.state

    def member(self) -> tuple[str, int]:
        return "member-1", 7

    def assignment(self) -> frozenset[Partition]:
        return frozenset(self.position)

    def positions(self) -> Mapping[Partition, int]:
        return dict(self.position)

    def ends(self) -> Mapping[Partition, tuple[int, int]]:
        return {
            p: (
                position,
                self.tail.get(p) or (self.log[p][-1].offset + 1 if self.log.get(p) else 0),
            )
            for p, position in self.position.items()
        }

    def topics(self) -> frozenset[str]:
        return frozenset(p.topic for p in self.log)

    def missing_topics(self) -> frozenset[str]:
        return frozenset()

    def wake(self) -> None:
        self._awake.set()

    def close(self, seat: Seat, timeout: float) -> None:
        assert self.closed is None, "closed twice"
        assert timeout > 0
        self.closed = seat
