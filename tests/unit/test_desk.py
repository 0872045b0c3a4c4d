"""The desk against a model of what it promises, whatever happens in whatever order."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import currently_in_test_context, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from penstock import offset_map
from penstock.batching import Batch
from penstock.breaker import Breaker, BreakerState
from penstock.desk import Desk, Outcome
from penstock.errors import NotSent, Poison, Undecodable
from penstock.failure import failure_of
from penstock.lane import Job, Lane, Stand
from penstock.memory import RECORD
from penstock.offsets import Position
from penstock.policy import Again, Last, Redelivered, Retry, Then, dead_letter, skip, stop
from penstock.record import Partition, Record
from tests.unit.making import make_plan, orders

PARTITIONS = [orders(n) for n in range(3)]
KINDS = ["partition", "key", "none", "batch"]
KEYS = [b"a", b"b", b"c", None]

#: The offset map in small, so that a few records come to its limits: 87 bytes of text, in which
#: 448 offsets, or 3 however far apart, always fit.
SMALL = {"MAP_LIMIT": 77, "_RAW": 56, "SPAN": 448, "ALWAYS": 3}


def test_the_small_map_is_made_like_the_real_one() -> None:
    raw = SMALL["MAP_LIMIT"] // 4 * 3 - 1
    assert {**SMALL, "_RAW": raw, "SPAN": raw * 8, "ALWAYS": raw // 18} == SMALL


@dataclasses.dataclass(eq=False)
class Owned:
    """One ownership of a partition, as the model sees it."""

    partition: Partition
    start: int
    #: Finished, says the commit that it began with.
    known: frozenset[int]
    fed: dict[int, Record] = dataclasses.field(default_factory=dict)
    #: Finished, as far as this ownership goes: known ones, handled, skipped, put aside.
    done: set[int] = dataclasses.field(default_factory=set)
    failures: Counter[int] = dataclasses.field(default_factory=Counter)
    #: When a record may come again at the earliest.
    not_before: dict[int, float] = dataclasses.field(default_factory=dict)
    leaving: bool = False
    gone: bool = False

    def unfinished(self) -> list[Record]:
        return [record for offset, record in self.fed.items() if offset not in self.done]


@dataclasses.dataclass(eq=False)
class Task:
    """A job in work."""

    job: Job
    owned: Owned
    #: The record that is in its handler.
    at: int = 0


def one(random: Random) -> dict[str, Any]:
    return {"partition": random.choice(PARTITIONS)}


def new_records(random: Random) -> list[tuple[int, bytes | None]]:
    return [(random.randrange(4), random.choice(KEYS)) for _ in range(random.randrange(8))]


def steps(random: Random) -> list[tuple[int, str]]:
    what = ["ok"] * 12 + ["error"] * 3 + ["poison", "undecodable", "other"]
    return [(random.randrange(100), random.choice(what)) for _ in range(random.randint(1, 9))]


#: What happens, how often, and the details.
HAPPENINGS: dict[str, tuple[int, Callable[[Random], dict[str, Any]]]] = {
    "feed": (5, lambda r: {**one(r), "new": new_records(r), "eager": r.random() < 0.2}),
    "take": (6, lambda r: {"times": r.randint(1, 5)}),
    "work": (8, lambda r: {"steps": steps(r), "index": r.choice([None, -1, 0, 1, 2, 5])}),
    "letter": (2, lambda r: {"pick": r.randrange(100), "ok": r.random() < 0.5}),
    "wait": (3, lambda r: {"seconds": r.choice([None, None, 0.1, 1.0, 5.0])}),
    "commit": (1, lambda _: {}),
    "answer": (1, lambda r: {"taken": r.random() < 0.8}),
    "commit_at_once": (2, lambda _: {}),
    "lost": (1, lambda r: {**one(r), "back": r.random() < 0.5}),
    "revoking": (1, one),
    "revoked": (2, lambda r: {**one(r), "patient": r.random() < 0.7, "taken": r.random() < 0.7}),
    "assign": (2, one),
    "quiet": (1, lambda _: {}),
    "resume": (3, lambda _: {}),
    "restart": (1, lambda r: {"exits": r.random() < 0.2}),
    "reached": (3, lambda r: {**one(r), "on": r.random() < 0.5}),
    "compact": (1, lambda r: {**one(r), "pick": r.randrange(100)}),
}
NAMES = [name for name, (often, _) in HAPPENINGS.items() for _ in range(often)]


class DeskMachine(RuleBasedStateMachine):
    """Plays the runners, the client, the broker, and the clock."""

    desk: Desk

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for name, value in SMALL.items():
            self.patch.setattr(offset_map, name, value)
        self.now = 0.0
        self.log: dict[Partition, list[Record]] = {p: [] for p in PARTITIONS}
        self.ends = dict.fromkeys(PARTITIONS, 0)
        self.fetch: dict[Partition, int] = {}
        self.owned: dict[Partition, Owned] = {}
        self.paused: set[Partition] = set()
        #: Finished by somebody at some time: the service may say so.
        self.done_ever: dict[Partition, set[int]] = {p: set() for p in PARTITIONS}
        self.commits: dict[Partition, Position] = {}
        self.under_way: list[tuple[Owned, Position]] = []
        self.tasks: list[Task] = []
        self.letters: list[Task] = []
        self.abandoned = 0
        #: Nothing was wrong so far: only then it is worth looking how it ends.
        self.well = False
        #: How often it came to what matters.
        self.met: Counter[str] = Counter()

    @initialize(random=st.randoms(use_true_random=False), kind=st.sampled_from(KINDS))
    def begin(self, random: Random, kind: str) -> None:
        """A process starts, after all that others did before it."""
        attempts = random.choice([None, 1, 2, 3])
        batch = Batch(random.randint(1, 5), random.choice([12, 10_000]), random.choice([0.0, 3.0]))
        breaker = random.choice([None, Breaker(share=0.5, window=random.randint(1, 4), pause=2.0)])
        self.random = random
        self.gaps = random.choice([(1, 1, 1, 2), (1, 2, 60, 500), (500, 500, 500, 1)])
        self.batch = kind == "batch"
        self.order = "partition" if self.batch else kind
        self.retry = Retry(attempts=attempts, on=(ValueError, Poison))
        self.then = random.choice([dead_letter("orders.dead")] * 4 + [skip()] * 3 + [stop()])
        self.plan = make_plan(
            [].append,
            batch=batch if self.batch else False,
            order_by=self.order,
            retry=self.retry,
            then=self.then,
            breaker=breaker,
            retry_first=1.0,
            retry_limit=4.0,
            buffer_records=random.choice([1, 8, 10_000]),
            max_poll_records=5,
        )
        self.desk = Desk(self.plan, lambda: 0.5)
        self.abandoned = 0
        for partition in PARTITIONS[:2]:
            self.assign_one(partition)

    @rule(random=st.randoms(use_true_random=False))
    def happens(self, random: Random) -> None:
        """One rule instead of many: a machine leaves out half of its rules in each run."""
        self.well = False
        name = random.choice(NAMES)
        details = HAPPENINGS[name][1](random)
        if currently_in_test_context():
            note(f"{name} {details}")
        getattr(self, name)(**details)
        if self.desk.fatal and not self.desk.draining:
            self.restart(exits=False)
        self.well = True

    # -- the client --------------------------------------------------------------------

    def feed(self, partition: Partition, new: list[tuple[int, bytes | None]], eager: bool) -> None:
        """``eager``: it was on its way when the pause came."""
        log = self.log[partition]
        for gap, key in new:
            offset = self.ends[partition]
            self.ends[partition] += self.gaps[gap]
            log.append(Record("orders", partition.number, offset, 0, key, b"12345", ()))
        owned = self.owned.get(partition)
        if owned is None:
            assert self.desk.feed(partition, log[-1:], self.now) == 0
            return
        if partition in self.paused and not eager:
            return
        fetched = [r for r in log if r.offset >= self.fetch[partition]][:5]
        if not fetched:
            return
        self.fetch[partition] = fetched[-1].offset + 1
        self.desk.feed(partition, fetched, self.now)
        if not (owned.leaving or self.desk.draining):
            owned.fed.update({r.offset: r for r in fetched})
        self.look_at_flow()

    def reached(self, partition: Partition, on: bool) -> None:
        """The client tells where it is; ``on``: it went on over what is no record."""
        if partition not in self.owned:
            return
        if on and not [r for r in self.log[partition] if r.offset >= self.fetch[partition]]:
            self.met["went on"] += self.fetch[partition] < self.ends[partition]
            self.fetch[partition] = self.ends[partition]
        self.desk.reached({p: self.fetch[p] for p in self.owned})

    def compact(self, partition: Partition, pick: int) -> None:
        """The log forgets a record that nobody has fetched, finished earlier or not."""
        at = self.fetch.get(partition)
        ahead = [n for n, r in enumerate(self.log[partition]) if at is not None and r.offset >= at]
        if ahead:
            del self.log[partition][ahead[pick % len(ahead)]]

    def look_at_flow(self) -> None:
        pause, resume = self.desk.flow()
        self.paused.update(pause)
        self.paused.difference_update(resume)

    # -- runners -----------------------------------------------------------------------

    def take(self, times: int) -> None:
        for _ in range(times):
            if not self.take_one():
                return

    def take_one(self) -> bool:
        circuit = self.desk._circuit
        shut = circuit is not None and not (
            circuit.state is BreakerState.CLOSED
            or (circuit.state is BreakerState.OPEN and self.now >= circuit._opens_again_at)
            or (circuit.state is BreakerState.PROBING and not circuit._probing)
        )
        job = self.desk.take(self.now)
        if job is None:
            due = self.desk.due()
            self.met["breaker"] += self.desk.breaker is BreakerState.OPEN
            assert due is None or due > self.now, "whoever waits for it would spin"
            return False
        assert not self.desk.draining
        assert not self.desk.is_quiet
        owned = self.owned[job.lane.partition]
        assert not owned.leaving
        task = Task(job, owned)
        if job.letter is not None:
            offset = job.letter.record.offset
            assert job.records == []
            self.check_may_start(owned, [job.letter.record])
            assert self.now >= owned.not_before.get(offset, 0)
            self.letters.append(task)
            return True
        assert not shut
        self.met["probe"] += job.probe
        self.met["backlog"] += bool(job.lane.backlog)
        assert job.records
        assert not job.probe or self.batch or len(job.records) == 1
        self.check_may_start(owned, job.records)
        self.tasks.append(task)
        return True

    def records_of(self, task: Task) -> list[Record]:
        letter = task.job.letter
        return task.job.records if letter is None else [letter.record]

    def check_may_start(self, owned: Owned, records: list[Record]) -> None:
        """Each was handed over, is not finished, and comes after all that it must come after."""
        offsets = [r.offset for r in records]
        assert offsets == sorted(set(offsets))
        under_way = [
            each
            for task in self.tasks + self.letters
            if task.owned is owned
            for each in self.records_of(task)
        ]
        unfinished = owned.unfinished()
        for record in records:
            assert record.offset in owned.fed
            assert record.offset not in owned.done
            assert record not in under_way
            assert self.now >= owned.not_before.get(record.offset, 0)
            if self.order == "none" or (self.order == "key" and record.key is None):
                continue
            same = [r for r in unfinished if self.order == "partition" or r.key == record.key]
            before = [r for r in same if r.offset < record.offset]
            assert before == [r for r in records if r in before], "out of order"
            assert not [r for r in under_way if r in same], "side by side"

    def work(self, steps: list[tuple[int, str]], index: int | None) -> None:
        """Runners get on with a record, or with their batch."""
        errors: dict[str, Exception | None] = {
            "ok": None,
            "error": ValueError("not today"),
            "poison": Poison("never", index=index if self.batch else None),
            "undecodable": Undecodable("never", index=index if self.batch else None),
            "other": KeyError("not worth another try"),
        }
        for pick, what in steps:
            self.take_one()
            if self.tasks:
                self.step(self.tasks[pick % len(self.tasks)], errors[what])

    def step(self, task: Task, error: BaseException | None) -> None:
        job, lane, owned = task.job, task.job.lane, task.owned
        assert lane.gone == owned.gone
        if error is not None:
            self.finish(task, error)
        elif self.batch:
            lane.done_all(job.records)
            self.over(owned, *job.records)
            task.at = len(job.records)
            self.finish(task, None)
        else:
            lane.done(job.records[task.at].offset)
            self.over(owned, job.records[task.at])
            task.at += 1
            stopped = owned.leaving or self.desk.draining or self.desk.is_quiet
            assert lane.stop == stopped
            if stopped or task.at == len(job.records):
                self.finish(task, None)

    def over(self, owned: Owned, *records: Record) -> None:
        owned.done.update(r.offset for r in records)
        self.done_ever[owned.partition].update(r.offset for r in records)
        self.met["finished"] += len(records)

    def finish(self, task: Task, error: BaseException | None) -> None:
        job, owned = task.job, task.owned
        job.done = task.at
        self.tasks.remove(task)
        rest = job.records[task.at :]
        self.fatal_before = self.desk.fatal
        failure = None if error is None else failure_of(error, self.retry.on)
        opened = self.desk.opened
        outcome = self.desk.finish(job, failure, self.now)
        if owned.gone or error is None:
            assert outcome is None
            return
        leaving = owned.leaving or self.desk.draining
        alone = len(rest) == 1 or not self.batch
        decided = isinstance(error, Undecodable) and alone
        if leaving and isinstance(error, Exception) and not decided:
            assert outcome is not None
            assert isinstance(outcome.verdict, Redelivered)
            assert (self.desk.fatal, self.desk.opened) == (self.fatal_before, opened)
            self.met["redelivered"] += 1
            return
        if not isinstance(error, Exception):
            assert outcome is None
            assert self.desk.fatal
            return
        assert outcome is not None
        if self.batch and len(rest) > 1:
            self.check_batch(rest, error, outcome)
        else:
            self.check_outcome(task, rest[0], error, outcome)

    def check_batch(self, rest: list[Record], error: Exception, outcome: Outcome) -> None:
        assert isinstance(outcome.verdict, Again)
        index = error.index if isinstance(error, Poison) else None
        culprit = index if index is not None and 0 <= index < len(rest) else 0
        assert outcome.record == rest[culprit]

    def check_outcome(self, task: Task, record: Record, error: Exception, outcome: Outcome) -> None:
        """A record that was alone with its failure."""
        owned = task.owned
        owned.failures[record.offset] += 1
        assert outcome.record == record
        verdict = outcome.verdict
        assert not isinstance(verdict, Redelivered)
        self.met["again" if isinstance(verdict, Again) else verdict.then] += 1
        spared = self.desk.breaker is not BreakerState.CLOSED and not task.job.probe
        hopeless = isinstance(error, Poison | KeyError)
        if not self.batch:  # in a batch, tries of the whole count as well
            attempts = owned.failures[record.offset]
            assert outcome.attempts == attempts
            limit = self.retry.attempts
            used_up = limit is not None and attempts >= limit and not spared
            assert isinstance(verdict, Last) == (hopeless or used_up)
        elif hopeless:
            assert isinstance(verdict, Last)
        if isinstance(verdict, Again):
            assert 0 < verdict.delay <= 4.0
            owned.not_before[record.offset] = self.now + verdict.delay
            assert outcome.letter is None
            return
        assert isinstance(verdict, Last)
        assert (verdict.then, verdict.topic) == (self.then.then, self.then.topic)
        if verdict.then is Then.STOP:
            assert self.desk.fatal
            # While it drains for one record, another may come to its end.
            assert self.fatal_before or str(record) in self.desk.fatal
        elif verdict.then is Then.SKIP:
            self.over(owned, record)
        else:
            assert outcome.letter is not None
            assert outcome.letter.letter is not None
            assert outcome.letter.letter.record == record
            assert outcome.letter.letter.failure.name == type(error).__name__
            self.letters.append(Task(outcome.letter, owned))

    def letter(self, pick: int, ok: bool) -> None:
        if not self.letters:
            return
        task = self.letters.pop(pick % len(self.letters))
        owned, refused = task.owned, task.job.letter
        assert refused is not None
        delay = self.desk.sent(task.job, None if ok else NotSent("no such topic"), self.now)
        if ok:
            self.over(owned, refused.record)
            assert delay is None
        elif owned.gone or owned.leaving or self.desk.draining:
            assert delay is None
        else:
            assert delay is not None
            owned.not_before[refused.record.offset] = self.now + delay

    # -- the clock ---------------------------------------------------------------------

    def wait(self, seconds: float | None) -> None:
        if seconds is None:
            self.now = max(self.now, self.desk.due() or 0)
        else:
            self.now += seconds

    # -- commits -----------------------------------------------------------------------

    def commit(self) -> None:
        if self.under_way:
            return
        found = self.desk.committable()
        assert found.keys() <= self.owned.keys()
        self.under_way = [(self.owned[p], position) for p, position in found.items()]

    def answer(self, taken: bool) -> None:
        """The broker answers; who has lost a partition meanwhile is refused."""
        answered, self.under_way = self.under_way, []
        if taken and not any(owned.gone for owned, _ in answered):
            for owned, position in answered:
                self.take_commit(owned, position)
            self.desk.committed({owned.partition: position for owned, position in answered})

    def commit_at_once(self) -> None:
        if not self.under_way:
            self.commit()
            self.answer(taken=True)

    def take_commit(self, owned: Owned, position: Position) -> None:
        partition, text = owned.partition, position.metadata
        assert len(text) <= SMALL["MAP_LIMIT"]
        beyond = offset_map.decode(position.offset, text).finished
        before = self.commits.get(partition)
        assert before is None or position.offset >= before.offset
        called_done = self.called_done(partition, position)
        assert called_done <= self.done_ever[partition], "a record is lost"
        assert beyond <= self.done_ever[partition]
        if before is not None:
            assert self.called_done(partition, before) <= called_done
        self.commits[partition] = position

    def called_done(self, partition: Partition, position: Position) -> set[int]:
        """What of the log is never handed out again once this is committed."""
        beyond = offset_map.decode(*position).finished
        return {
            r.offset
            for r in self.log[partition]
            if r.offset < position.offset or r.offset in beyond
        }

    # -- partitions come and go --------------------------------------------------------

    def assign(self, partition: Partition) -> None:
        if partition not in self.owned:
            self.assign_one(partition)

    def assign_one(self, partition: Partition) -> None:
        committed = self.commits.get(partition)
        start = committed.offset if committed else 0
        known = offset_map.decode(*committed).finished if committed else frozenset[int]()
        assert self.desk.assigned({partition: committed}) == []
        self.owned[partition] = Owned(partition, start, known, done=set(known))
        self.fetch[partition] = start
        self.met["known"] += bool(known)
        self.paused.discard(partition)

    def revoking(self, partition: Partition) -> None:
        if partition in self.owned:
            self.take(3)
            self.desk.revoking([partition])
            self.owned[partition].leaving = True
            if self.random.random() < 0.5:
                self.work(steps(self.random), None)

    def revoked(self, partition: Partition, patient: bool, taken: bool) -> None:
        """``patient``: after what is in flight; ``taken``: so is the commit."""
        owned = self.owned.get(partition)
        if owned is None or not owned.leaving:
            return
        busy = [t for t in self.tasks + self.letters if t.owned is owned]
        assert self.desk.settled([partition]) == (not busy)
        if patient:
            for task in busy:
                if task in self.tasks:
                    self.step(task, None)
                    assert task not in self.tasks, "it did not stop before the next record"
            while any(t.owned is owned for t in self.letters):
                self.letter([t.owned for t in self.letters].index(owned), ok=True)
            assert self.desk.settled([partition])
            busy = []
        position = self.desk.committable([partition]).get(partition)
        dirty = self.dirty(owned)
        if position is not None and taken:
            self.take_commit(owned, position)
            if patient:
                self.check_complete(owned, position)
        cut_off = self.desk.forget([partition], committed=taken)
        assert cut_off == ([partition] if busy else [])
        self.abandoned += bool(busy) or (dirty and not taken)
        self.left(owned)

    def lost(self, partition: Partition, back: bool) -> None:
        """As after a crash: the next owner knows what was committed."""
        owned = self.owned.get(partition)
        if owned is None:
            return
        busy = [t for t in self.tasks + self.letters if t.owned is owned]
        dirty = self.dirty(owned)
        self.desk.revoking([partition])
        self.desk.forget([partition], committed=False)
        self.abandoned += bool(busy or dirty)
        self.left(owned)
        if back:
            self.assign_one(partition)

    def dirty(self, owned: Owned) -> bool:
        """Whether work would be lost with it; where the client went on over nothing is none."""
        dirty = self.desk._lanes[owned.partition].dirty
        committed = self.commits.get(owned.partition, Position(0))
        assert dirty or owned.done - owned.known <= self.called_done(owned.partition, committed)
        return dirty

    def left(self, owned: Owned) -> None:
        owned.leaving = owned.gone = True
        del self.owned[owned.partition]
        del self.fetch[owned.partition]

    def check_complete(self, owned: Owned, position: Position) -> None:
        """A commit after the last handler: nothing that finished comes again."""
        done = {r.offset for r in self.log[owned.partition] if r.offset in owned.done}
        assert done <= self.called_done(owned.partition, position)

    # -- quiet, drain ------------------------------------------------------------------

    def quiet(self) -> None:
        self.desk.quiet()

    def resume(self) -> None:
        self.desk.resume(self.now)

    def restart(self, exits: bool) -> None:
        """Asked for, or because a record says so; what finishes before the end is committed."""
        if self.desk.draining:
            return
        if exits and self.tasks:
            self.step(self.tasks[0], SystemExit(3))
        if self.desk.fatal is None:
            self.take(5)
        self.desk.drain()
        self.work(steps(self.random), None)
        for _ in range(self.random.randrange(5)):
            self.happens(self.random)
        while self.finish_something():
            self.check()
        assert self.desk.running == 0
        for partition, position in self.desk.committable().items():
            self.take_commit(self.owned[partition], position)
        for owned, lane in self.lanes():
            position_now = lane.position() or self.commits.get(owned.partition)
            self.check_complete(owned, position_now or Position(0))
            owned.gone = True
        self.met["restart"] += 1
        self.owned.clear()
        self.fetch.clear()
        self.begin(self.random, self.random.choice(KINDS))  # changes are made by any restart

    # -- what holds at any time --------------------------------------------------------

    def lanes(self) -> list[tuple[Owned, Lane]]:
        return [(self.owned[p], lane) for p, lane in self.desk._lanes.items()]

    @invariant()
    def check(self) -> None:
        if hasattr(self, "desk"):
            self.well = False
            self.jobs_are_counted()
            self.positions_say_exactly_what_is_finished()
            self.unfinished_is_the_first_that_is_not_finished()
            self.nothing_that_waits_is_forgotten()
            self.what_waits_is_counted()
            self.well = True

    def jobs_are_counted(self) -> None:
        assert self.desk.running == len(self.tasks) + len(self.letters)
        assert self.desk.abandoned == self.abandoned

    def positions_say_exactly_what_is_finished(self) -> None:
        for owned, lane in self.lanes():
            position = lane.position()
            unfinished = [r.offset for r in owned.unfinished()]
            if position is None:
                assert owned.done == owned.known
                continue
            assert owned.start <= position.offset
            assert all(offset >= position.offset for offset in unfinished)
            assert len(position.metadata) <= SMALL["MAP_LIMIT"]
            beyond = offset_map.decode(*position).finished
            assert beyond == {offset for offset in owned.done if offset >= position.offset}

    def unfinished_is_the_first_that_is_not_finished(self) -> None:
        told = self.desk.unfinished()
        for owned, lane in self.lanes():
            if owned.leaving or self.desk.draining:
                continue  # what waited is dropped
            backlog = {r.offset for r in lane.backlog}  # not looked at yet: known ones count
            waiting = [o for o in owned.fed if o not in owned.done or o in backlog]
            assert told.get(owned.partition) == min(waiting, default=None)

    def nothing_that_waits_is_forgotten(self) -> None:
        """Somebody will come back to each strand, and to each backlog."""
        jobs = {id(t.job.strand) for t in self.tasks + self.letters}
        tickets = {ticket: strand for _, ticket, _, strand in self.desk._later}
        for owned, lane in self.lanes():
            waiting = set[int]()
            for strand in lane.strands.values():
                waiting.update(r.offset for r in strand.waiting)
                if strand.letter is not None:
                    waiting.add(strand.letter.record.offset)
                if strand.stand is Stand.READY:
                    queue = self.desk._ready if strand.letter is None else self.desk._letters
                    assert strand in queue
                elif strand.stand is Stand.LATER:
                    assert tickets[strand.ticket] is strand
                    if self.order == "partition" and (strand.attempts or strand.letter):
                        assert owned.partition in self.desk._flow._held, "it goes on filling"
                elif strand.stand in (Stand.BUSY, Stand.SENDING):
                    assert id(strand) in jobs
                else:
                    assert lane.stop or not (strand.waiting or strand.letter), "never again"
            if owned.leaving or self.desk.draining:
                continue
            under_way = {
                r.offset for t in self.tasks if t.owned is owned for r in t.job.records[t.at :]
            }
            backlog = {r.offset for r in lane.backlog}
            assert {r.offset for r in owned.unfinished()} == waiting | under_way | (
                backlog - owned.done
            )
            assert not backlog or lane.stop or waiting or under_way, "the backlog stands still"

    def what_waits_is_counted(self) -> None:
        flow = self.desk._flow
        assert flow.waiting == sum(flow._waiting.values())
        assert flow.bytes == sum(flow._bytes.values())
        for owned, lane in self.lanes():
            if owned.leaving or self.desk.draining:
                continue  # what was dropped is taken from the count with the partition
            if any(t.owned is owned for t in self.tasks):
                continue  # counted when the job comes back
            waiting = [r for r in owned.fed.values() if r.offset not in owned.done]
            waiting += [r for r in lane.backlog if r.offset in owned.known]
            assert flow._waiting[owned.partition] == len(waiting)
            size = sum(len(r.key or b"") + len(r.value or b"") + RECORD for r in waiting)
            assert flow._bytes.get(owned.partition, 0) == size

    # -- the end -----------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.well:
                self.end()
        finally:
            self.patch.undo()

    def end(self) -> None:
        """Whatever happened: with nothing in its way, everything gets done."""
        if self.desk.draining or self.desk.fatal or self.random.random() < 0.2:
            self.restart(exits=self.random.random() < 0.2)
        self.desk.resume(self.now)
        while self.finish_something() or self.go_on():
            self.check()
        assert self.desk.running == self.desk.retrying == 0
        for owned, lane in self.lanes():
            position = lane.position()
            if position is not None:
                self.take_commit(owned, position)
                self.check_complete(owned, position)
            if not owned.leaving:
                assert owned.unfinished() == [], "it stands still"
                assert not lane.backlog
        self.look_at_flow()
        if not any(owned.leaving for owned in self.owned.values()):
            assert self.desk.waiting == self.desk._flow.bytes == 0
            assert not self.paused & self.owned.keys(), "nobody would ever resume it"

    def finish_something(self) -> bool:
        if self.tasks:
            self.step(self.tasks[0], None)
            return True
        if self.letters:
            self.letter(0, ok=True)
            return True
        return False

    def go_on(self) -> bool:
        if self.take_one():
            return True
        due = self.desk.due()
        if due is None:
            return False
        self.now = due
        return True


TestDesk = DeskMachine.TestCase
TestDesk.settings = settings(max_examples=50, stateful_step_count=50)


def long_run(seed: int, kind: str) -> DeskMachine:
    machine, random = DeskMachine(), Random(seed)
    try:
        machine.begin(random, kind)
        for _ in range(300):
            machine.happens(random)
            machine.check()
    finally:
        machine.teardown()
    return machine


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(10))
def test_long_runs(kind: str, seed: int) -> None:
    """Deeper than the machine by itself gets in the same time; nothing is shrunk."""
    long_run(seed, kind)


def test_the_machine_meets_what_it_is_made_for() -> None:
    """One that never handled, failed, or stopped would pass everything."""
    met: Counter[str] = Counter()
    for seed in range(3):
        met.update(long_run(seed, "key").met)
    wanted = {"known", "finished", "again", *Then, "restart", "backlog", "breaker", "probe"}
    wanted |= {"redelivered", "went on"}
    assert {name for name in wanted if not met[name]} == set()


def test_a_backlog_goes_on_when_an_earlier_owner_has_finished_all_there_is_room_for() -> None:
    """Records far apart, of which as many are finished as the text can hold."""
    log = [Record("orders", 0, 1_000 * n, 0, b"%d" % n, b"", ()) for n in range(500)]
    finished = {r.offset for r in log[1 : offset_map.ALWAYS]}
    desk = Desk(make_plan([].append, order_by="key"), lambda: 0.5)
    desk.assigned({PARTITIONS[0]: Position(0, offset_map.encode(0, finished))})
    desk.feed(PARTITIONS[0], log, 0.0)
    handled = list[int]()
    while (job := desk.take(0.0)) is not None:
        for record in job.records:
            job.lane.done(record.offset)
            handled.append(record.offset)
        job.done = len(job.records)
        desk.finish(job, None, 0.0)
    assert handled == [r.offset for r in log if r.offset not in finished]
    assert desk.waiting == 0


def test_a_partition_that_waits_for_its_retry_is_held_though_records_come_late() -> None:
    """Also where its offsets are followed one by one, because of what was finished before."""
    zero = PARTITIONS[0]
    desk = Desk(make_plan([].append), lambda: 0.5)
    desk.assigned({zero: Position(0, offset_map.encode(0, {1}))})
    log = [Record("orders", 0, n, 0, None, b"", ()) for n in range(9)]
    desk.feed(zero, log[:3], 0.0)
    desk.flow()
    job = desk.take(0.0)
    assert job is not None
    desk.finish(job, failure_of(ValueError("not today"), [Exception]), 0.0)
    desk.feed(zero, log[3:], 0.0)  # was on its way
    assert desk.flow() == ([zero], [])
    due = desk.due()
    assert due is not None
    again = desk.take(due)
    assert again is not None
    assert [r.offset for r in again.records] == [0, 2, 3, 4, 5, 6, 7, 8]
    assert desk.flow() == ([], [zero])


def test_an_open_breaker_does_not_hold_up_dead_letters() -> None:
    """A letter that was refused is sent again in its own time, not in that of the probes."""
    plan = make_plan(
        lambda _: None,
        retry=Retry(first=10.0, limit=10.0),
        then=dead_letter("dead"),
        breaker=Breaker(window=2, pause=1000.0, limit=1000.0),
    )
    desk = Desk(plan, lambda: 0.0)
    desk.assigned(dict.fromkeys(PARTITIONS))
    for partition in PARTITIONS:
        record = Record("orders", partition.number, 0, 0, None, b"", ())
        desk.feed(partition, [record], 0.0)
    jobs = [job for _ in PARTITIONS if (job := desk.take(0.0)) is not None]
    outcome = desk.finish(jobs[0], failure_of(Poison("no such customer"), [Exception]), 0.0)
    assert outcome is not None
    assert outcome.letter is not None
    assert desk.sent(outcome.letter, NotSent("no such topic"), 0.0) == 0.5
    for job in jobs[1:]:
        desk.finish(job, failure_of(RuntimeError("the database is down"), [Exception]), 0.0)
    assert desk.breaker is BreakerState.OPEN
    assert desk.take(11.0) is not None, "the letter is due, whatever waits before it"
    assert desk.take(11.0) is None, "nothing else is, while the breaker is open"


def test_a_resume_that_crosses_a_failure_starts_nothing_any_more() -> None:
    """Somebody asks to go on in the moment between the end of the service and its drain."""
    desk = Desk(make_plan([].append, then=stop(), retry=Retry(attempts=1)), lambda: 0.5)
    desk.assigned(dict.fromkeys(PARTITIONS))
    for partition in PARTITIONS:
        desk.feed(partition, [Record("orders", partition.number, 0, 0, None, b"", ())], 0.0)
    job = desk.take(0.0)
    assert job is not None
    desk.finish(job, failure_of(ValueError("no"), [Exception]), 0.0)
    assert desk.fatal
    desk.resume(1.0)
    assert desk.take(100.0) is None
