"""The port between a worker and a Kafka client, so that engines can stand beside each other.

Nothing outside :mod:`penstock.kafka` imports a client. An engine turns the client's errors
into those of :mod:`penstock.errors`: :class:`~penstock.errors.KafkaFailure` is fatal,
:class:`~penstock.errors.CommitRefused` means "keep polling and try again".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from typing import Protocol

from penstock.offsets import Position
from penstock.record import Partition, Record
from penstock.seat import Seat


class Membership(StrEnum):
    """Where the member stands in its group."""

    UNJOINED = "unjoined"
    REBALANCING = "rebalancing"
    STABLE = "stable"


class Rebalance(Protocol):
    """What the worker does when partitions come and go.

    Called on the engine's own thread while ``poll`` or ``close`` waits for it, or from within
    ``poll``. Nothing here may raise or block: the engine's thread also sends the heartbeats.
    A partition that goes before it was announced by :meth:`assigned` is never mentioned.
    """

    def assigned(self, partitions: Mapping[Partition, Position | None]) -> bool:
        """Partitions were added, and this is what the group has committed for them.

        ``None``: nothing is known of it, as of a topic that was just made anew; where the group
        had committed nothing, the engine has committed where it begins. The text beside the
        offset is for this offset of this log, or empty. The client need not start there: an
        offset that the log does not have any more is reset. Returns whether they must be paused
        (quiet, draining).
        """
        ...

    def revoking(self, partitions: Collection[Partition]) -> None:
        """Partitions are moving away: start nothing new on them."""
        ...

    def settled(self, partitions: Collection[Partition]) -> bool:
        """Whether nothing is in flight on them any more."""
        ...

    def leave_by(self) -> float | None:
        """When a drain that is under way must have its handlers finished, on the monotonic clock.

        ``None`` without a drain. A revocation waits no longer than that, and whatever finishes
        meanwhile is committed at once.
        """
        ...

    def committable(
        self, partitions: Collection[Partition] | None = None
    ) -> Mapping[Partition, Position]:
        """What is finished on them (``None``: anywhere) and not yet committed."""
        ...

    def committed(self, positions: Mapping[Partition, Position]) -> None:
        """The broker confirmed these positions."""
        ...

    def revoked(self, partitions: Collection[Partition], *, committed: bool) -> None:
        """They are gone. ``committed``: what :meth:`committable` gave was taken."""
        ...

    def lost(self, partitions: Collection[Partition]) -> None:
        """They were taken away: somebody else has them already, nothing can be committed."""
        ...


class Commit(Protocol):
    """An asynchronous commit on its way."""

    def outcome(self) -> Exception | bool:
        """``False`` while under way, ``True`` when taken, else the error."""
        ...


class Engine(Protocol):
    """A consumer, member of one group. Used by one thread, except where noted."""

    def poll(self, timeout: float, limit: int) -> Mapping[Partition, list[Record]]:
        """Records that arrived, or nothing after ``timeout`` seconds.

        Raises:
            KafkaFailure: for good; the worker must end.
        """
        ...

    def pause(self, partitions: Collection[Partition]) -> None:
        """Fetch nothing more from these; unknown partitions are ignored."""
        ...

    def resume(self, partitions: Collection[Partition]) -> None:
        """Fetch from these again; partitions that are unknown, or not announced, are ignored."""
        ...

    def seek(self, partition: Partition, offset: int) -> None:
        """Read ``partition`` from ``offset`` next."""
        ...

    def commit(self, offsets: Mapping[Partition, Position], timeout: float) -> None:
        """Commit the next offsets to read, with their texts, and wait for the broker's word.

        Raises:
            CommitRefused: not now (rebalance, coordinator moving, timeout).
            KafkaFailure: for good.
        """
        ...

    def commit_soon(self, offsets: Mapping[Partition, Position]) -> Commit:
        """Commit without waiting. One at a time: commits must arrive in order."""
        ...

    def membership(self) -> Membership:
        """Where this member stands."""
        ...

    def member(self) -> tuple[str, int]:
        """Member id and generation, as the group knows this member; an empty id: it does not."""
        ...

    def assignment(self) -> frozenset[Partition]:
        """What this member owns."""
        ...

    def positions(self) -> Mapping[Partition, int]:
        """The next offset that ``poll`` may bring, of partitions that were announced.

        Whatever lies before was brought by a ``poll`` that has returned, or is no record: a
        transaction's marker, or what compaction took away.
        """
        ...

    def ends(self) -> Mapping[Partition, tuple[int, int]]:
        """``(next offset to fetch, end of the log)`` for partitions where both are known."""
        ...

    def topics(self) -> frozenset[str]:
        """Topics that are subscribed now; under a pattern, those that match it now."""
        ...

    def missing_topics(self) -> frozenset[str]:
        """Topics subscribed by name that the cluster does not have."""
        ...

    def wake(self) -> None:
        """Something settled: look at a revocation under way again. From any thread."""
        ...

    def close(self, seat: Seat, timeout: float) -> str | None:
        """Close the client and give up, or keep, the seat in the group.

        Returns why a seat that was to be given up may still be held.
        """
        ...


Connect = Callable[[Rebalance, float], Engine]
"""Make an engine: ``connect(rebalance, timeout)``.

Raises ``TimeoutError`` when no broker answered (try again later) and
:class:`~penstock.errors.KafkaFailure` when one answered no.
"""

GiveUp = Callable[[float], str | None]
"""Give up the seat of a static member that has no engine, within so many seconds.

Returns why it may still be held, ``None`` when it is not. Never raises.
"""
