"""A group member without a worker: the real engine, and a notebook where the worker would be."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Self

from penstock.kafka.kafka_python import KafkaPythonEngine
from penstock.offsets import Position
from penstock.record import Partition, Record
from penstock.seat import Seat
from penstock.settings import Settings


class Notebook:
    """Takes every partition and lets it go; writes down what it is told."""

    def __init__(self) -> None:
        self.owned: dict[Partition, Position | None] = {}
        self.told: list[tuple[str, frozenset[Partition]]] = []
        #: What to commit when partitions move away.
        self.finished: dict[Partition, Position] = {}
        #: Whether partitions that come are to be paused.
        self.quiet = False
        #: In a handler: a revocation waits for it.
        self.busy: set[Partition] = set()
        #: When a drain must have its handlers finished.
        self.drained_by: float | None = None

    def assigned(self, partitions: Mapping[Partition, Position | None]) -> bool:
        assert not set(partitions) & set(self.owned), "announced twice"
        self.owned.update(partitions)
        self._note("assigned", partitions)
        return self.quiet

    def revoking(self, partitions: Collection[Partition]) -> None:
        assert set(partitions) <= set(self.owned), "never announced"
        self._note("revoking", partitions)

    def settled(self, partitions: Collection[Partition]) -> bool:
        return not self.busy & set(partitions)

    def leave_by(self) -> float | None:
        return self.drained_by

    def committable(
        self, partitions: Collection[Partition] | None = None
    ) -> dict[Partition, Position]:
        return {p: at for p, at in self.finished.items() if partitions is None or p in partitions}

    def committed(self, positions: Mapping[Partition, Position]) -> None:
        for partition, position in positions.items():
            if self.finished.get(partition) == position:
                del self.finished[partition]

    def revoked(self, partitions: Collection[Partition], *, committed: bool) -> None:
        self._gone("revoked" if committed else "revoked, not committed", partitions)

    def lost(self, partitions: Collection[Partition]) -> None:
        self._gone("lost", partitions)

    def events(self, kind: str) -> list[frozenset[Partition]]:
        return [partitions for what, partitions in self.told if what == kind]

    def _gone(self, kind: str, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            del self.owned[partition]  # KeyError: it was never announced
        self._note(kind, partitions)

    def _note(self, kind: str, partitions: Collection[Partition]) -> None:
        self.told.append((kind, frozenset(partitions)))


class Member:
    """An engine, its notebook, and everything that it polled."""

    def __init__(
        self,
        bootstrap: str,
        group: str,
        *topics: str,
        pattern: str | None = None,
        instance: str | None = None,
        **settings: object,
    ) -> None:
        self.notebook = Notebook()
        self.records: list[Record] = []
        self.engine = KafkaPythonEngine(
            Settings.model_validate({"bootstrap_servers": bootstrap, **settings}),
            topics,
            group,
            instance,
            self.notebook,
            10.0,
            pattern=pattern,
        )

    def poll(self, timeout: float = 0.1, limit: int = 500) -> None:
        """Poll once; no record may come from a partition that was not announced."""
        for partition, records in self.engine.poll(timeout, limit).items():
            assert partition in self.notebook.owned, f"{partition} was never announced"
            self.records.extend(records)

    def owns(self, *numbers: int, topic: str) -> bool:
        """Whether exactly these partitions of the topic are announced."""
        return {p.number for p in self.notebook.owned if p.topic == topic} == set(numbers)

    def offsets(self, topic: str, number: int) -> list[int]:
        """Offsets that came from one partition, in the order they came."""
        return [r.offset for r in self.records if (r.topic, r.partition) == (topic, number)]

    def close(self, seat: Seat = Seat.LEAVE) -> None:
        self.engine.close(seat, 5.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def until(
    condition: Callable[[], Any], *members: Member, timeout: float = 30.0, what: str = ""
) -> None:
    """Poll the members, one after the other, until the condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, (
            f"{what}: {[(m.engine.membership(), m.notebook.told) for m in members]}"
        )
        for member in members:
            member.poll()
