"""The test kit: a handler, its topics in memory, and a group of one or two members."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from random import Random
from typing import Any

from pydantic_core import to_json

from penstock.app import App, Subscription
from penstock.breaker import BreakerState
from penstock.budget import Budget
from penstock.exits import Exit
from penstock.offsets import Position
from penstock.plan import Plan, plans
from penstock.policy import Then
from penstock.record import Partition, Record
from penstock.settings import PREFIX
from penstock.signature import Handler
from penstock.testing.calls import Try
from penstock.testing.errors import KitError
from penstock.testing.member import Member
from penstock.testing.virtual import EPOCH
from penstock.testing.world import World

#: Virtual seconds after which :meth:`Kit.run` no longer believes that it will end.
DAY = 86_400.0


class Kit:
    """One subscription of an application, run in memory and in virtual time.

    ``kit.run()`` handles what was sent; look at :attr:`handled`, :attr:`dead_letters`,
    :meth:`committed` and the others afterwards. Handlers that are coroutines are really
    concurrent. Plain functions are called one after another; they tell with :meth:`spend` how
    long they take, and then overlap as they would in threads.
    """

    def __init__(
        self,
        app: App,
        handler: Handler | str | None = None,
        *,
        seed: int | None = None,
        **settings: Any,
    ) -> None:
        """``handler``: which one, itself or its name, if the application has several.

        ``seed``: shuffle what goes first where the order is not promised, and the jitter of
        delays; the same seed gives the same run. Without one it is first come, first served,
        and delays are exact. ``settings``: those of a service, without ``PENSTOCK_``. The
        environment is not looked at.

        Raises:
            KitError: the application has no such handler.
            ConfigError: a setting or a combination that could never work.
        """
        self._plan = _plan(app, handler, settings)
        self._random = None if seed is None else Random(seed)  # noqa: S311 (no secret)
        self._world = World()
        self._members = [self._member()]
        #: Why the service ended by itself, as ``then=stop()`` does; ``None`` while it runs.
        self.stopped: str | None = None

    # -- records in --------------------------------------------------------------------

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int = 0,
        headers: Sequence[tuple[str, bytes | None]] = (),
        timestamp: int | None = None,
        offset: int | None = None,
    ) -> Record:
        """Produce a record; the next :meth:`run` or :meth:`advance` handles it.

        ``timestamp``: milliseconds since the epoch; by default the kit's time, which begins
        at :data:`~penstock.testing.EPOCH`. ``offset``: to leave a gap, as compaction does.

        Raises:
            KitError: the handler does not read that topic, or the record could not exist.
        """
        self._check(topic, key, value)
        where = Partition(topic, partition)
        end = self._world.topics.end(where)
        if offset is not None and offset < end:
            raise KitError(f"offset {offset}: {where} has come to {end}")
        record = Record(
            topic=topic,
            partition=partition,
            offset=end if offset is None else offset,
            timestamp=int((EPOCH + self.now) * 1000) if timestamp is None else timestamp,
            key=key,
            value=value,
            headers=tuple(headers),
        )
        if self._world.topics.add(record):
            self._members[0].assign([where], fresh=True)
        self.sent.append(record)
        for member in self._members:
            self._world.loop.call_soon(member.pump)
        return record

    def send_json(self, topic: str, value: object, **options: Any) -> Record:
        """:meth:`send` ``value`` as JSON: what ``json`` takes, dataclasses, pydantic models."""
        return self.send(topic, to_json(value), **options)

    def _check(self, topic: object, key: object, value: object) -> None:
        plan = self._plan
        if not isinstance(topic, str):
            raise KitError(f"send(topic, value): {topic!r} is no topic")
        known = (
            topic in plan.topics
            if plan.pattern is None
            else re.fullmatch(plan.pattern, topic) is not None
        )
        if not known:
            raise KitError(f"handler {plan.name} does not read {topic!r} but {plan.reads}")
        for name, given in (("key", key), ("value", value)):
            if given is not None and not isinstance(given, bytes):
                raise KitError(
                    f"{name}={given!r}: bytes, as on the wire, or None"
                    + ("; send_json() takes values" if name == "value" else "")
                )

    # -- time --------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Virtual seconds since the kit was made; in a plain handler, with what it spent."""
        return self._world.now

    def run(self, until: Callable[[], bool] | None = None, *, patience: float = DAY) -> None:
        """Let time pass until nothing is left to do, now or later; then commit.

        ``until``: stop, in the middle of things, as soon as it is true. It is asked whenever
        something happened; commits then come at their interval only. A record that ends the
        service ends this, too: see :attr:`stopped`.

        Raises:
            KitError: after ``patience`` virtual seconds there is still something to do, a
                handler waits for what never comes, or ``until`` never came true.
        """
        self._may_run()
        rest = self._is_at_rest if until is None else until
        self._spin(
            lambda: rest() or self._fatal is not None,
            horizon=self.now + patience,
            on_rest=lambda: self._complain(patience),
        )
        if self._fatal is not None:
            self._stop()
        elif until is None:
            for member in self._members:
                member.commit()

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` of virtual time pass, whatever is then still to be done."""
        self._may_run()
        if not 0 <= seconds < math.inf:
            raise KitError(f"advance({seconds}): seconds, 0 or more")
        self._spin(lambda: self._fatal is not None, horizon=self.now + seconds)
        if self._fatal is not None:
            self._stop()

    def spend(self, seconds: float) -> None:
        """Called in a plain handler, in the place of ``time.sleep``: it takes that long.

        Raises:
            KitError: the handler is a coroutine (``asyncio.sleep`` does it there), or none runs.
        """
        spending = self._world.spending
        if spending is None:
            raise KitError(
                "spend() is for plain handlers while they run; between runs use advance(), in a "
                "coroutine asyncio.sleep()"
            )
        spending.add(seconds)

    # -- what happened -----------------------------------------------------------------

    @property
    def sent(self) -> list[Record]:
        """Everything sent, in the order of sending."""
        return self._world.sent

    @property
    def handled(self) -> list[Record]:
        """Records for which the handler returned, in that order; those handled twice, twice."""
        return self._world.handled

    @property
    def skipped(self) -> list[Record]:
        """Records given up on by ``then=skip()``."""
        return self._world.skipped

    @property
    def tries(self) -> list[Try]:
        """Every call of the handler, in the order in which they began."""
        return self._world.tries

    @property
    def counts(self) -> Counter[str]:
        """Records by outcome, with the words of ``penstock_records_total``."""
        return self._world.counts

    @property
    def commits(self) -> dict[Partition, Position]:
        """What the group has committed, as Kafka keeps it."""
        return self._world.topics.commits

    @property
    def in_flight(self) -> list[Record]:
        """Records that are in a handler at this moment."""
        alive = [member for member in self._members if not member.dead]
        return [r for member in alive for call in member.calls for r in call.records]

    @property
    def waiting(self) -> int:
        """Records that were fetched and are not finished; back-pressure bounds them."""
        return sum(member.desk.waiting for member in self._members)

    @property
    def retrying(self) -> int:
        """Records that wait for their next try, or for their dead letter to be sent again."""
        return sum(member.desk.retrying for member in self._members)

    @property
    def breaker(self) -> BreakerState:
        """Where the circuit breaker stands; of two members', the one that is not closed."""
        states = [member.desk.breaker for member in self._members]
        return max(states, key=lambda state: state is not BreakerState.CLOSED)

    @property
    def failures(self) -> list[Try]:
        """The tries that raised."""
        return [call for call in self.tries if call.error is not None]

    @property
    def batches(self) -> list[list[Record]]:
        """What a batch handler returned for, list by list."""
        return [
            list(call.records)
            for call in self.tries
            if call.ended is not None and call.error is None
        ]

    @property
    def repeated(self) -> list[Record]:
        """Records for which the handler returned more than once."""
        times = Counter((r.topic, r.partition, r.offset) for r in self.handled)
        first = {(r.topic, r.partition, r.offset): r for r in self.handled}
        return [first[at] for at, number in times.items() if number > 1]

    def attempts(self, record: Record) -> int:
        """How often the handler was called with ``record``, also in a batch."""
        return self._world.attempts[record.topic, record.partition, record.offset]

    def dead_letters(self, topic: str | None = None) -> list[Record]:
        """The records in the dead-letter topic, as they are on the wire.

        :func:`penstock.letters.origin` reads their headers.

        Raises:
            KitError: the subscription puts dead letters into no topic, or into another one.
        """
        then = self._plan.policy.then
        if then.then is not Then.DEAD_LETTER or topic not in (None, then.topic):
            place = f"into {then.topic!r}" if then.topic else "nowhere"
            raise KitError(f"handler {self._plan.name} puts its dead letters {place}")
        return self._world.topics.of(then.topic)

    def committed(self, partition: int | Partition = 0, topic: str | None = None) -> int | None:
        """The committed offset: the first record that is not finished.

        Where to begin is committed before anything is handled; ``None``: there is no such
        partition.
        """
        position = self._world.topics.commits.get(self._named(partition, topic))
        return None if position is None else position.offset

    def committed_beyond(
        self, partition: int | Partition = 0, topic: str | None = None
    ) -> frozenset[int]:
        """The offsets beyond :meth:`committed` that the commit's metadata calls finished."""
        return self._world.beyond(self._named(partition, topic))

    # -- what happens to a service -----------------------------------------------------

    def commit(self) -> None:
        """Commit now; otherwise it is done at every ``commit_interval``."""
        for member in self._members:
            member.commit()

    def refuse_letters(self, times: float = math.inf) -> None:
        """The next ``times`` dead letters are not taken; ``0``: take them again."""
        self._world.refusals = times

    def restart(self) -> Exit:
        """A planned restart: drain, commit, end; a new process begins where that one left.

        Returns how the old one ended: ``RESTART``; ``FORCED`` if a handler was still running at
        the deadline; ``CRASHED`` if a record had ended it. What fails meanwhile is not decided,
        and a record that waits (for its next try, for its dead letter) is handled again.
        """
        self._may_be_called()
        ended = Exit.CRASHED
        if self.stopped is None:
            stuck = self._drain()
            ended = Exit.FORCED if stuck else Exit.RESTART
            if self._fatal is not None:
                ended = Exit.CRASHED
            self._kill()
        self._begin()
        return ended

    def crash(self) -> None:
        """The process dies at this moment, as by KILL; a new one begins from the last commit.

        What is in flight never returns. (Coroutines see a cancellation; a real crash would not
        run their ``finally``.) Variables of the application keep their values.
        """
        self._may_be_called()
        self._kill()
        self._world.forget_uncommitted(self._world.topics.partitions)
        self._begin()

    def rebalance(self, *partitions: int | Partition, lost: bool = False) -> None:
        """Move partitions, by default all, from the member that has them to the other one.

        In order: what is in flight is finished first, for at most ``revoke_timeout``, and
        committed. ``lost``: taken away, as from a member that was silent for too long; what is
        in flight there goes on, and nothing of it can be committed.
        """
        self._may_run()
        moving = [self._named(p, None) for p in partitions] or self._world.topics.partitions
        if len(self._members) == 1:
            self._members.append(self._member())
        taken = [[p for p in moving if p in member.owned] for member in self._members]
        for member, leaving in zip(self._members, taken, strict=True):
            self._take_away(member, leaving, lost=lost)
        if lost:
            self._world.forget_uncommitted(moving)
        for member, coming in zip(self._members, reversed(taken), strict=True):
            member.assign(coming)
        if self._fatal is not None:
            self._stop()

    # -- inside ------------------------------------------------------------------------

    def _member(self) -> Member:
        return Member(self._plan, self._world, self._random)

    def _take_away(self, member: Member, leaving: Collection[Partition], *, lost: bool) -> None:
        member.desk.revoking(leaving)
        if not lost:
            timeout = self._plan.settings.revoke_timeout
            self._spin(lambda: member.desk.settled(leaving), horizon=self.now + timeout)
            member.commit_these(leaving)
        member.give_up(leaving, committed=not lost)

    @property
    def _fatal(self) -> str | None:
        return next((m.desk.fatal for m in self._members if m.desk.fatal), None)

    def _is_at_rest(self) -> bool:
        return all(member.at_rest for member in self._members)

    def _stop(self) -> None:
        """A record ended the service: what is in flight is finished and committed, exit 1."""
        self._drain()
        self.stopped = self._fatal
        self._kill()

    def _drain(self) -> bool:
        """Finish what is in flight, commit; whether something was left at the deadline."""
        budget = Budget.of(self._plan.settings.drain_timeout, now=self.now)
        for member in self._members:
            member.desk.drain()
            member.count_dropped()
        self._spin(
            lambda: not any(m.desk.running for m in self._members), horizon=budget.handlers_by
        )
        for member in self._members:
            member.commit()
        return any(m.desk.running for m in self._members)

    def _kill(self) -> None:
        for member in self._members:
            member.die()
        self._spin(lambda: all(m.ended for m in self._members), horizon=self.now)

    def _begin(self) -> None:
        """A new process takes over everything."""
        self._members = [self._member()]
        self.stopped = None
        self._members[0].assign(p for p in self._world.topics.partitions if self._reads(p))

    def _reads(self, partition: Partition) -> bool:
        return any(r.topic == partition.topic for r in self.sent)

    def _named(self, partition: int | Partition, topic: str | None) -> Partition:
        if not isinstance(partition, int):
            return Partition(*partition)
        if topic is None:
            topics = {r.topic for r in self.sent} or set(self._plan.topics)
            if len(topics) != 1:
                names = ", ".join(sorted(topics))
                raise KitError(f"partition {partition} of which topic? There are {names}")
            [topic] = topics
        return Partition(topic, partition)

    def _spin(
        self,
        over: Callable[[], bool],
        *,
        horizon: float,
        on_rest: Callable[[], None] | None = None,
    ) -> None:
        for member in self._members:
            self._world.loop.call_soon(member.pump)
        self._world.spin(over, horizon=horizon, on_rest=on_rest)

    def _may_be_called(self) -> None:
        if self._world.loop.is_running():
            raise KitError("called from a handler: stop with run(until=…) first, then call it")
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            raise KitError("called from a coroutine: the kit has a loop of its own, use `def`")

    def _may_run(self) -> None:
        self._may_be_called()
        if self.stopped is not None:
            raise KitError(f"the service has ended ({self.stopped}); restart() starts it again")

    def _complain(self, patience: float) -> None:
        """Nothing happens any more, or not before patience ends."""
        held = ", ".join(map(str, self.in_flight)) or "no record"
        error = self.failures[-1].error if self.failures else None
        said = ""
        if error is not None:
            record = self.failures[-1].records[0]
            said = f"; {record} was tried {self.attempts(record)} times, last: {error!r}"
        if self._is_at_rest():
            raise KitError(f"nothing is left to do, and until() is still not true{said}")
        if self._world.loop.forsaken:
            raise KitError(f"{held} in a handler that waits for what never comes{said}")
        raise KitError(
            f"after {patience:,.0f} virtual seconds there is still something to do: {held} in a "
            f"handler, {self.retrying} to be tried again{said}"
        ) from error

    def __repr__(self) -> str:
        said = [f"{len(self.sent)} sent", f"{len(self.handled)} handled", f"now={self.now:g}"]
        if self.failures:
            last = self.failures[-1]
            said.append(f"last failure {last.records[0]}: {last.error!r}")
        if self.stopped is not None:
            said.append(f"stopped: {self.stopped}")
        return f"<Kit {self._plan.name}: {', '.join(said)}>"


def _plan(app: App, handler: Handler | str | None, settings: dict[str, Any]) -> Plan:
    chosen = _chosen(app, handler)
    alone = App(**{"bootstrap_servers": "kit:9092", **app.settings, **settings})
    alone.subscriptions.append(chosen)
    with _no_environment():
        [plan] = plans(alone)
    return plan


def _chosen(app: App, handler: Handler | str | None) -> Subscription:
    if not isinstance(app, App):
        raise KitError(f"Kit(app): {app!r} is no penstock.App")
    names = ", ".join(s.name for s in app.subscriptions) or "none"
    found = [
        s
        for s in app.subscriptions
        if handler is None or handler in (s.handler, s.name, s.name.rpartition(".")[2])
    ]
    if len(found) == 1:
        return found[0]
    if handler is None and found:
        raise KitError(f"the application has several handlers: Kit(app, name), one of {names}")
    name = handler if isinstance(handler, str) else getattr(handler, "__qualname__", handler)
    many = "two subscriptions of the same name" if found else f"no handler {name}"
    raise KitError(f"the application has {many}; it has: {names}")


@contextlib.contextmanager
def _no_environment() -> Iterator[None]:
    """Whatever ``PENSTOCK_*`` a developer has set must not change what a test shows."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(PREFIX)}
    try:
        yield
    finally:
        os.environ.update(hidden)
