"""Records that kill their process: found out, put aside, and nobody else with them.

A simulation of processes that die and begin again where the group's commits and the state
directories left them, with the real desk in each.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import deaths, offset_map
from penstock.board import Working
from penstock.deaths import KILLS, Toll
from penstock.desk import Desk
from penstock.errors import KilledItsProcess
from penstock.failure import failure_of
from penstock.lane import Job
from penstock.offset_map import MOST_DEATHS, Deaths
from penstock.offsets import Position
from penstock.policy import Again, Retry, dead_letter, skip, stop
from penstock.record import Partition, Record
from tests.unit.making import make_plan, orders

LIMIT = 3
Place = tuple[int, int]


@dataclasses.dataclass
class Group:
    """What outlives a process: the log, the commits, and a state directory for each service."""

    records: dict[Partition, list[Record]]
    killers: set[Place]
    commits: dict[Partition, Position] = dataclasses.field(default_factory=dict)
    tolls: list[dict[str, Toll]] = dataclasses.field(default_factory=list)
    handled: Counter[Place] = dataclasses.field(default_factory=Counter)
    aside: dict[Place, Any] = dataclasses.field(default_factory=dict)
    deaths: Counter[Place] = dataclasses.field(default_factory=Counter)
    ids: int = 0

    def left(self) -> set[Place]:
        every = {(r.partition, r.offset) for each in self.records.values() for r in each}
        return every - set(self.handled) - set(self.aside)


class Process:
    """One life: a worker of one service, until it dies or nothing is left to do."""

    def __init__(self, group: Group, service: int, kind: str, random: Random, then: Any) -> None:
        self.group, self.service, self.random = group, service, random
        self.batch = kind == "batch"
        plan = make_plan(
            lambda _: None,
            concurrency=4,
            batch=self.batch,
            order_by="partition" if self.batch else kind,
            then=then,
        )
        plan = dataclasses.replace(plan, policy=dataclasses.replace(plan.policy, deaths=LIMIT))
        self.desk = Desk(plan, lambda: 0.0)
        self.desk.tolls(group.tolls[service].values())
        self.desk.assigned({p: group.commits.get(p) for p in group.records})
        for partition, records in group.records.items():
            at = group.commits.get(partition, Position(0)).offset
            self.desk.feed(partition, [r for r in records if r.offset >= at], 0.0)
        self.desk.reached({p: records[-1].offset + 1 for p, records in group.records.items()})
        self.jobs: list[list[Any]] = []  # job, index of the record that it handles or None

    def live(self) -> bool:
        """Whether it lived to the end."""
        for _ in range(3000):
            what = self.random.random()
            if what < 0.15:
                self.commit()
            elif what < 0.5 and len(self.jobs) < 4:
                self.take()
            elif self.jobs:
                if self.killed():
                    return False
                self.work(self.random.choice(self.jobs))
            if not self.jobs and self.desk.fatal is not None:
                self.desk.drain()
                self.commit()
                return True
            if not self.jobs and not self.group.left():
                self.commit()
                return True
        raise AssertionError("it stands still")

    def take(self) -> None:
        job = self.desk.take(0.0)
        if job is None:
            return
        if job.letter is not None:
            self.sent(job)
            return
        if job.alone:
            assert not self.jobs
            assert not self.desk.committable()  # its death repeats nothing
        assert not any(other.alone for other, _ in self.jobs)
        self.jobs.append([job, None])

    def sent(self, job: Job) -> None:
        assert job.letter is not None
        record = job.letter.record
        self.group.aside[record.partition, record.offset] = job.letter.failure
        self.desk.sent(job, None, 0.0)

    def work(self, running: list[Any]) -> None:
        """One step of a runner."""
        job, at = running
        if at is None:
            try:
                job.check()
            except KilledItsProcess as error:
                self.back(running, error)
                return
            if job.lane.stop and not job.alone:
                self.back(running, None)
            else:
                running[1] = 0
            return
        done = job.records if self.batch else [job.records[at]]
        if any((r.partition, r.offset) in self.group.killers for r in done):
            return  # it never returns
        for record in done:
            self.group.handled[record.partition, record.offset] += 1
            if not self.batch:
                job.lane.done(record.offset)
        if self.batch:
            job.lane.done_all(done)
        job.done += len(done)
        if job.done == len(job.records) or job.lane.stop:
            self.back(running, None)
        else:
            running[1] = at + 1

    def back(self, running: list[Any], error: Exception | None) -> None:
        job = running[0]
        self.jobs.remove(running)
        failure = None if error is None else failure_of(error, (Exception,))
        outcome = self.desk.finish(job, failure, 0.0)
        if outcome is not None and outcome.letter is not None:
            self.sent(outcome.letter)
        elif isinstance(error, KilledItsProcess) and self.desk.fatal is None:
            record = job.records[0]
            self.group.aside[record.partition, record.offset] = failure

    def commit(self) -> None:
        positions = self.desk.committable()
        self.group.commits.update(positions)
        if self.random.random() < 0.9:  # else it dies between the broker's word and its own
            self.desk.committed(positions)
            for each in self.desk.merged(0.0):
                self.group.tolls[self.service].pop(each, None)

    def killed(self) -> bool:
        working = []
        guilty = []
        for slot, (job, at) in enumerate(self.jobs):
            if at is None:
                continue
            held = job.records if self.batch else [job.records[at]]
            first, last = held[0], held[-1]
            working.append(
                Working(
                    slot,
                    first.topic,
                    first.partition,
                    first.offset,
                    len(held),
                    None,
                    1.0,
                    last.offset,
                )
            )
            guilty += [p for r in held if (p := (r.partition, r.offset)) in self.group.killers]
        if not guilty or self.random.random() > 0.4:
            return False
        self.group.deaths[self.random.choice(guilty)] += 1
        alone = any(job.alone for job, _ in self.jobs)
        for partition, found in deaths.held(working, alone=alone).items():
            self.group.ids += 1
            toll = Toll(str(self.group.ids), "billing", partition, found, 0.0)
            self.group.tolls[self.service][toll.id] = toll
        return True


def play(
    random: Random, kind: str, services: int, then: Any, *, killers: int, size: int = 12
) -> tuple[Group, int]:
    """Until everything is handled or put aside; the group, and how many processes that took."""
    keys = [b"a", b"b", b"c", None]
    records = {
        orders(n): [
            Record("orders", n, offset, 0, random.choice(keys), None, ()) for offset in range(size)
        ]
        for n in range(2)
    }
    places = [(r.partition, r.offset) for each in records.values() for r in each]
    group = Group(records, set(random.sample(places, killers)))
    group.tolls = [{} for _ in range(services)]
    lives = 0
    while group.left():
        Process(group, random.randrange(services), kind, random, then).live()
        lives += 1
        assert lives < 200, f"{len(group.left())} left, {group.deaths}"
    return group, lives


@settings(deadline=None)
@given(
    st.integers(0, 2**32).map(Random),
    st.sampled_from(["partition", "key", "none", "batch"]),
    st.integers(0, 3),
    st.integers(1, 3),
)
def test_killers_are_put_aside_and_nobody_else(
    random: Random, kind: str, killers: int, services: int
) -> None:
    group, _ = play(random, kind, services, dead_letter("dead"), killers=killers)
    assert set(group.aside) == group.killers
    assert all(
        isinstance(e, KilledItsProcess) or "killed its process" in str(e)
        for e in group.aside.values()
    )
    innocent = {(r.partition, r.offset) for each in group.records.values() for r in each}
    assert set(group.handled) == innocent - group.killers
    if services == 1:
        # In company LIMIT times; once alone. A neighbour that kills, too, may have been the one.
        assert all(n <= LIMIT + 1 + killers for n in group.deaths.values())
    assert sum(group.deaths.values()) <= killers * (LIMIT + 1 + 2 * services)


def test_the_plain_way() -> None:
    """Three deaths in company, one alone; then its handler is not called any more."""
    group, lives = play(Random(7), "none", 1, skip(), killers=1)
    [killer] = group.killers
    assert group.deaths == {killer: LIMIT + 1}
    assert lives == LIMIT + 2
    assert group.aside[killer].text == f"killed its process {LIMIT + 1} times"


def test_stop_ends_the_service_and_tries_again_after_that() -> None:
    """Somebody may have mended the handler: it is tried alone once more, at each start."""
    random = Random(3)
    records = {orders(0): [Record("orders", 0, n, 0, None, None, ()) for n in range(3)]}
    group = Group(records, {(0, 0)}, tolls=[{}])
    ends = []
    for _ in range(8):
        process = Process(group, 0, "partition", random, stop())
        lived = process.live()
        ends.append(process.desk.fatal if lived else None)
    assert [end is not None for end in ends] == [
        *[False] * (LIMIT + 1),
        True,
        False,
        True,
        False,
    ]
    assert "orders[0]@0" in str(ends[LIMIT + 1])
    assert "killed its process 4 times" in str(ends[LIMIT + 1])
    group.killers.clear()  # mended: told once more, and then it is handled
    for fatal in (True, False):
        process = Process(group, 0, "partition", random, stop())
        assert process.live()
        assert (process.desk.fatal is not None) is fatal
    assert group.left() == set()


# -- counts ----------------------------------------------------------------------------


ranges = st.builds(
    lambda first, size, times, kills: Deaths(first, first + size, times, int(kills and not size)),
    st.integers(0, 60),
    st.integers(0, 9),
    st.integers(1, 4),
    st.booleans(),
)
lists = st.lists(ranges, max_size=12)


def level(entries: Any, offset: int) -> int:
    return sum(d[2] for d in entries if d.first <= offset <= d.last)


@settings(max_examples=500, deadline=None)
@given(lists, lists, st.integers(1, 20))
def test_a_sum_never_says_less(some: list[Deaths], more: list[Deaths], most: int) -> None:
    total = deaths.summed(some, more, most=most)
    assert len(total) <= most
    assert all(a.last < b.first for a, b in pairwise(total))
    kill = [d.first for d in [*some, *more] if d.flags]
    for offset in range(75):
        found = deaths.of(total, offset)
        count = 0 if found is None else found[2]
        assert count >= level([*some, *more], offset)
        if found is not None and found.flags:
            assert offset in kill  # being near makes nobody one that kills


@given(lists)
def test_a_sum_is_exact_where_there_is_room(some: list[Deaths]) -> None:
    total = deaths.summed(some, most=1000)
    assert all(level(total, o) == level(some, o) for o in range(75))
    assert deaths.summed(total, most=1000) == total


@given(lists, st.integers(0, 70))
def test_without_takes_out_one(some: list[Deaths], offset: int) -> None:
    total = deaths.summed(some)
    left = deaths.without(total, offset)
    assert deaths.of(left, offset) is None
    assert all(
        deaths.of(left, o) is not None
        for o in range(75)
        if o != offset and deaths.of(total, o) is not None
    )


def test_hundreds_in_flight_fit() -> None:
    """A worker with many handlers: whoever was in flight stays a suspect."""
    held = [Working(i, "orders", 0, 7 * i, 1, None, 1.0, 7 * i) for i in range(500)]
    found = deaths.held(held, alone=False)[orders(0)]
    assert len(found) == MOST_DEATHS
    assert all(deaths.of(found, w.offset) is not None for w in held)


def test_one_that_was_alone_kills_and_nobody_else() -> None:
    one = Working(0, "orders", 0, 7, 1, None, 1.0, 7)
    other = Working(1, "orders", 1, 3, 1, None, 1.0, 3)
    assert deaths.held([one], alone=True) == {orders(0): (Deaths(7, 7, 1, KILLS),)}
    assert deaths.held([one], alone=False) == {orders(0): (Deaths(7, 7, 1, 0),)}
    assert all(
        d.flags == 0 for each in deaths.held([one, other], alone=True).values() for d in each
    )
    batch = dataclasses.replace(one, count=3, last=9)
    assert deaths.held([batch], alone=True) == {orders(0): (Deaths(7, 9, 1, 0),)}


def test_a_toll_reads_back() -> None:
    toll = Toll("abc", "billing", orders(3), (Deaths(4, 9, 2, 0), Deaths(12, 12, 1, KILLS)), 5.5)
    assert Toll.from_json(toll.to_json()) == toll


@pytest.mark.parametrize(
    "change",
    [
        *({"deaths": [[1, 2]]}, {"deaths": [[2, 1, 1, 0]]}, {"deaths": [[1, 2, 0, 0]]}),
        *({"deaths": "ab"}, {"deaths": None}, {"partition": "x"}, {"at": None}, {"topic": ...}),
    ],
)
def test_what_is_no_toll(change: dict[str, Any]) -> None:
    data = Toll("abc", "billing", orders(3), (Deaths(4, 9, 2, 0),), 5.5).to_json() | change
    if data["topic"] is ...:
        del data["topic"]
    with pytest.raises(ValueError, match=r"not a|invalid literal"):
        Toll.from_json(data)
    with pytest.raises(ValueError, match="not a"):
        Toll.from_json([])


# -- alone -----------------------------------------------------------------------------


class Alone:
    """A desk with one record in each of two partitions; that of partition 0 is a suspect."""

    def __init__(self, **options: Any) -> None:
        plan = make_plan(lambda _: None, concurrency=2, **options)
        self.desk = Desk(plan, lambda: 0.0)
        once, rest = Deaths(0, 0, 1), Deaths(0, 0, LIMIT - 1)
        self.desk.tolls([Toll("t", "billing", orders(0), (rest,), 0.0)])
        known = Position(0, offset_map.encode(0, (), [once]))
        self.desk.assigned({orders(0): known, orders(1): Position(0)})
        for n in (0, 1):
            self.desk.feed(orders(n), [Record("orders", n, 0, 0, None, None, ())], 0.0)

    def commit(self) -> list[str]:
        self.desk.committed(self.desk.committable())
        return self.desk.merged(0.0)


def test_nothing_is_handed_out_before_the_group_knows() -> None:
    alone = Alone()
    job = alone.desk.take(0.0)
    assert job is not None
    assert job.records[0].partition == 1  # the other partition goes on
    assert alone.desk.take(0.0) is None
    assert alone.desk.owes
    position = alone.desk.committable()[orders(0)]
    assert position.offset == 0
    assert offset_map.decode(*position[:2]).deaths == (Deaths(0, 0, LIMIT),)
    alone.desk.committed({orders(0): Position(0)})  # an older one, on its way before
    assert alone.desk.merged(0.0) == []
    assert alone.commit() == ["t"]
    assert alone.commit() == []
    assert alone.desk.take(0.0) is None  # it waits until the other one is done
    job.lane.done(0)
    job.done = 1
    alone.desk.finish(job, None, 0.0)
    assert alone.desk.owes
    assert alone.desk.take(0.0) is None  # and until that is committed
    alone.commit()
    suspect = alone.desk.take(0.0)
    assert suspect is not None
    assert suspect.alone


def test_a_commit_that_never_comes_is_not_waited_for_for_ever() -> None:
    alone = Alone()
    job = alone.desk.take(0.0)
    assert job is not None
    alone.commit()
    assert alone.desk.take(0.0) is None
    job.lane.done(0)
    job.done = 1
    alone.desk.finish(job, None, 0.0)
    due = alone.desk.due()
    assert due is not None
    assert alone.desk.take(due - 0.1) is None
    suspect = alone.desk.take(due)
    assert suspect is not None
    assert suspect.alone
    assert alone.desk.due() is None


def test_quiet_holds_it_and_drops_it_when_its_partition_goes() -> None:
    alone = Alone()
    alone.commit()
    alone.desk.quiet()
    assert alone.desk.take(0.0) is None
    alone.desk.resume(0.0)
    suspect = alone.desk.take(0.0)
    assert suspect is not None
    assert suspect.alone
    assert alone.desk.take(0.0) is None
    alone.desk.revoking([orders(0)])
    alone.desk.finish(suspect, None, 0.0)  # it let go before it began
    other = alone.desk.take(0.0)
    assert other is not None
    assert other.records[0].partition == 1


def test_one_that_raises_is_acquitted_and_tried_again_like_any_other() -> None:
    alone = Alone(retry=Retry(attempts=2, first=0.5))
    alone.commit()
    other = alone.desk.take(0.0)
    assert other is not None
    alone.desk.finish(other, failure_of(RuntimeError("later"), (Exception,)), 0.0)
    suspect = alone.desk.take(0.0)
    assert suspect is not None
    assert suspect.alone
    assert alone.desk.take(1.0) is None  # the other's next try is due, and waits
    outcome = alone.desk.finish(suspect, failure_of(RuntimeError("no"), (Exception,)), 1.0)
    assert outcome is not None
    assert isinstance(outcome.verdict, Again)
    jobs = [alone.desk.take(5.0), alone.desk.take(5.0)]
    assert {job.records[0].partition for job in jobs if job is not None} == {0, 1}
    assert not any(job.alone for job in jobs if job is not None)
    assert alone.desk.committable()[orders(0)] == Position(0)  # nothing is said of it any more


def test_deaths_of_what_is_finished_are_not_waited_for() -> None:
    desk = Desk(make_plan(lambda _: None), lambda: 0.0)
    desk.tolls([Toll("t", "billing", orders(0), (Deaths(0, 4, LIMIT),), 0.0)])
    desk.assigned({orders(0): Position(5)})
    assert desk.merged(0.0) == ["t"]
    assert not desk.owes


def test_a_partition_that_moves_away_takes_what_it_was_told_with_it() -> None:
    alone = Alone()
    alone.desk.revoking([orders(0)])
    assert alone.desk.committable([orders(0)])[orders(0)].metadata
    alone.desk.forget([orders(0)], committed=True)
    assert alone.desk.merged(0.0) == ["t"]
    lost = Alone()
    lost.desk.forget([orders(0)], committed=False)
    assert lost.desk.merged(0.0) == []
    lost.desk.assigned({orders(0): Position(0)})  # it is told again
    assert lost.desk.owes


def test_another_worker_has_told_it() -> None:
    alone = Alone()
    alone.desk.forget([orders(0)], committed=False)
    alone.desk.forget_tolls(["t", "nobody's"])
    alone.desk.assigned({orders(0): Position(0)})
    assert not alone.desk.owes
