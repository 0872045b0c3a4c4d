from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock.board import Board
from penstock.budget import Budget
from penstock.errors import (
    CommitRefused,
    Fenced,
    NotSent,
    PenstockError,
    Poison,
    Unreadable,
)
from penstock.exits import Exit
from penstock.kafka.port import Membership
from penstock.letters import Letter
from penstock.offsets import Position
from penstock.policy import dead_letter
from penstock.record import Partition
from penstock.seat import Seat
from penstock.steps import Steps
from penstock.telemetry.tally import Tally
from penstock.worker.dispatch import Dispatcher, Post
from penstock.worker.loop import Ending, PollLoop
from penstock.worker.threads import Threads
from tests.unit.fake_engine import FakeEngine
from tests.unit.making import PATIENCE, Work, make_plan, orders, records

pytestmark = pytest.mark.usefixtures("no_log")

ZERO, ONE = orders(0), orders(1)
REFUSED = CommitRefused("RebalanceInProgressError: try again")
FENCED = Fenced("another member joined with this group.instance.id")


class Rig:
    """A poll loop between a fake engine and a real dispatcher."""

    def __init__(
        self, work: Work, *, concurrency: int = 2, post: Post | None = None, **values: Any
    ) -> None:
        values = {"commit_interval": 3600.0, "retry_first": 0.001, "retry_limit": 0.01, **values}
        self.work = work
        plan = make_plan(work, concurrency=concurrency, **values)
        self.board = Board.create(concurrency)
        self.tally = Tally()
        self.dispatcher = Dispatcher(plan, self.board, self.tally, post)
        self.engine = FakeEngine(self.dispatcher)
        self.reports: list[dict[str, Any]] = []
        steps = Steps(time.monotonic, began=time.monotonic())
        self.loop = PollLoop(
            plan, self.engine, self.dispatcher, self.board, self.tally, self.reports.append, steps
        )
        self.dispatcher.on_settled = self.engine.wake
        self.dispatcher.start()

    def consume_until(self, condition: Callable[[], bool]) -> PenstockError | None:
        """On this thread, as the worker does; never for ever."""
        over = time.monotonic() + PATIENCE
        failure = self.loop.consume(lambda: condition() or time.monotonic() >= over)
        assert failure is not None or condition()
        return failure

    def take_in(self, count: int, *, started: bool = False) -> None:
        """Consume until ``count`` records were finished, or started."""
        seen = self.work.started if started else self.work.finished
        self.consume_until(lambda: len(seen) >= count)

    def drain(
        self,
        *,
        handlers: float = PATIENCE,
        worker: float | None = None,
        seat: Seat = Seat.LEAVE,
        restart: bool = False,
        fatal: PenstockError | None = None,
    ) -> Ending:
        now = time.monotonic()
        until = handlers + 1.0 if worker is None else worker
        budget = Budget(now + handlers, now + until, now + until, now + until + 1)
        return self.loop.drain(budget, seat, restart=restart, fatal=fatal)

    def sync_commits(self) -> list[dict[Partition, Position]]:
        return [offsets for how, offsets in self.engine.history if how == "sync"]


@pytest.fixture
def rigs() -> Iterator[list[Rig]]:
    made: list[Rig] = []
    yield made
    for rig in made:
        rig.work.release()
        rig.dispatcher.drain()
        assert rig.dispatcher.end(PATIENCE)
        rig.board.close()


@pytest.fixture
def make(rigs: list[Rig]) -> Callable[..., Rig]:
    def build(work: Work | None = None, **options: Any) -> Rig:
        rigs.append(Rig(work or Work(), **options))
        return rigs[-1]

    return build


Make = Callable[..., Rig]


def started_rig(make: Make, *, offsets: int = 3, work: Work | None = None, **values: Any) -> Rig:
    """Everything of one partition finished, nothing committed."""
    rig = make(work, **values)
    rig.engine.write(ZERO, records(0, *range(offsets)))
    rig.engine.assign(ZERO)
    return rig


# -- a record's way in -----------------------------------------------------------------


def test_records_are_handled_and_committed_as_time_goes_by(make: Make) -> None:
    rig = started_rig(make, offsets=40, commit_interval=0.001, max_poll_records=7)
    rig.consume_until(lambda: rig.engine.committed == {ZERO: Position(40)})
    assert rig.work.offsets(0) == list(range(40))
    assert not rig.sync_commits()
    positions = [offsets[ZERO] for _, offsets in rig.engine.history]
    assert positions == sorted(set(positions))  # forward, and nothing twice


def test_a_refused_commit_comes_again(make: Make) -> None:
    rig = started_rig(make, commit_interval=0.001)
    rig.engine.refusals.extend([REFUSED, REFUSED])
    rig.consume_until(lambda: rig.engine.committed == {ZERO: Position(3)})
    assert rig.tally.to_json()["commits"]["failed"] == 2
    assert {how for how, _ in rig.engine.history} == {"async"}


def test_back_pressure_pauses_and_lets_go(make: Make) -> None:
    work = Work(blocked={(0, 0)})
    rig = started_rig(make, offsets=50, work=work, buffer_records=5, max_poll_records=5)
    rig.consume_until(lambda: rig.engine.paused == {ZERO})
    assert rig.engine.position[ZERO] == 5
    work.release()
    rig.take_in(50)
    rig.consume_until(lambda: rig.engine.paused == set())


def test_quiet_pauses_everything_and_resume_lets_all_flow(make: Make) -> None:
    rig = started_rig(make)
    rig.engine.assign(ONE)
    rig.take_in(3)
    rig.dispatcher.quiet()
    rig.consume_until(lambda: rig.engine.paused == {ZERO, ONE})
    rig.engine.write(ZERO, records(0, 3))
    before = rig.engine.polls
    rig.consume_until(lambda: rig.engine.polls >= before + 5)
    assert len(rig.work.started) == 3
    rig.dispatcher.resume()
    rig.take_in(4)
    assert rig.engine.paused == set()


def test_a_partition_that_was_paused_when_it_went_flows_when_it_is_back(make: Make) -> None:
    """A pause of the old ownership, remembered, would be left over by the next resume."""
    work = Work(blocked={(0, 0)})
    rig = started_rig(make, offsets=8, work=work, buffer_records=4, max_poll_records=4)
    rig.consume_until(lambda: rig.engine.paused == {ZERO})
    rig.engine.lose(ZERO)
    work.release()
    assert rig.dispatcher.wait_idle(PATIENCE)
    rig.engine.assign(ZERO)
    rig.dispatcher.quiet()
    rig.consume_until(lambda: rig.engine.paused == {ZERO})
    rig.dispatcher.resume()
    rig.consume_until(lambda: len(work.finished) >= 9)
    assert work.offsets(0) == [0, *range(8)]


def test_what_the_client_cannot_mend_ends_it(make: Make) -> None:
    rig = started_rig(make)

    def broken() -> None:
        raise Unreadable("orders[0]: a record batch is corrupt")

    rig.engine.on_poll = broken
    failure = rig.consume_until(lambda: False)
    assert isinstance(failure, Unreadable)


def test_sys_exit_in_a_handler_ends_it(make: Make) -> None:
    work = Work(error=SystemExit(5))
    work.failing[0, 1] = 1
    rig = started_rig(make, work=work)
    failure = rig.consume_until(lambda: False)
    assert failure is not None
    assert "SystemExit" in str(failure)
    ending = rig.drain(fatal=failure)
    assert (ending.code, ending.clean) == (Exit.CRASHED, False)
    assert rig.engine.committed == {ZERO: Position(1)}


def test_the_supervisor_is_told(make: Make) -> None:
    rig = started_rig(make)
    rig.engine.state = Membership.UNJOINED
    rig.loop._tell()
    assert (rig.reports[-1]["state"], rig.reports[-1]["joined"]) == ("joining", False)
    rig.engine.state = Membership.STABLE
    rig.take_in(3)
    assert rig.dispatcher.wait_idle(PATIENCE)
    rig.engine.write(ZERO, records(0, 3, 4))
    rig.loop._tell()
    assert rig.reports[-1] == {
        "state": "running",
        "joined": True,
        "assignment": {"orders": [0]},
        "lag": {"orders": {"0": 2}},
        "waiting": 0,
        "work": {"retrying": 0, "breaker": "closed"},
        "caught_up": False,
        "warnings": [],
    }
    rig.engine.state = Membership.REBALANCING  # a member it stays
    rig.loop._tell()
    assert rig.reports[-1]["joined"]
    assert rig.board.poll_at() is not None


def test_lag_counts_what_was_fetched_and_not_finished(make: Make) -> None:
    work = Work(blocked={(0, 1)})
    rig = started_rig(make, work=work)
    rig.take_in(2, started=True)
    rig.loop._tell()
    assert rig.reports[-1]["lag"] == {"orders": {"0": 2}}
    # After the last record of a transaction comes its marker, which is never handed over.
    work.release()
    assert rig.dispatcher.wait_idle(PATIENCE)
    rig.take_in(3)
    rig.engine.tail[ZERO] = 4
    rig.consume_until(lambda: rig.engine.position[ZERO] == 4)
    rig.loop._tell()
    assert rig.reports[-1]["lag"] == {"orders": {"0": 0}}


def test_where_the_client_is_is_committed_when_nothing_is_unfinished(make: Make) -> None:
    """And not before: an unfinished record, or one that was dropped, is waited for."""
    work = Work(blocked={(0, 1)})
    rig = started_rig(make, work=work, commit_interval=0.001)
    rig.engine.tail[ZERO] = 5
    rig.engine.tail[ONE] = 3
    rig.engine.assign(ONE)  # nothing in it but markers
    rig.consume_until(lambda: rig.engine.committed.get(ONE) == Position(3))
    rig.consume_until(lambda: rig.engine.committed.get(ZERO) == Position(1))
    rig.consume_until(lambda: rig.engine.position[ZERO] == 5)
    seen = rig.engine.polls
    rig.consume_until(lambda: rig.engine.polls > seen + 5)
    assert rig.engine.committed[ZERO] == Position(1)
    work.release()
    rig.consume_until(lambda: rig.engine.committed == {ZERO: Position(5), ONE: Position(3)})


def test_a_drain_commits_where_the_client_is_too(make: Make) -> None:
    """Or a restart right behind a transaction would leave its marker as lag until the next."""
    rig = started_rig(make, offsets=3)  # no commit is due before the drain
    rig.engine.tail[ZERO] = 4
    rig.take_in(3)
    rig.consume_until(lambda: rig.engine.position[ZERO] == 4)
    assert rig.drain().clean
    assert rig.engine.committed == {ZERO: Position(4)}


def test_what_a_drain_refuses_is_not_committed_past(make: Make) -> None:
    """The drain began on the control thread, between a poll and what it brought."""
    rig = started_rig(make, offsets=3)
    rig.engine.on_poll = rig.dispatcher.drain
    rig.consume_until(lambda: rig.engine.position[ZERO] == 3)
    assert rig.drain().clean
    assert rig.work.finished == []
    assert rig.engine.committed == {}


def test_a_record_that_a_drain_drops_is_not_committed_past(make: Make) -> None:
    work = Work(blocked={(0, 0)})
    rig = started_rig(make, work=work, commit_interval=0.001)
    rig.engine.tail[ZERO] = 5
    rig.take_in(1, started=True)
    rig.consume_until(lambda: rig.engine.position[ZERO] == 5)
    threading.Timer(0.05, work.release).start()
    assert rig.drain().clean
    assert rig.engine.committed == {ZERO: Position(1)}


def test_a_batch_run_tells_when_it_has_caught_up(make: Make) -> None:
    work = Work(blocked={(0, 1)})
    rig = started_rig(
        make, work=work, stop_when_caught_up=True, heartbeat_interval=0.01, commit_interval=0.01
    )
    rig.take_in(2, started=True)
    rig.loop._look_if_caught_up(time.monotonic() + 100)
    rig.loop._look_if_caught_up(time.monotonic() + 200)
    assert not rig.loop._caught_up
    work.release()
    rig.consume_until(lambda: rig.loop._caught_up)
    assert work.finished[-1].offset == 2
    assert rig.reports[-1]["caught_up"]


def test_a_batch_run_that_is_given_an_unfinished_partition_is_not_done(make: Make) -> None:
    """Another worker died, and this one is given what it left."""
    work = Work(blocked={(1, 0)})
    rig = started_rig(
        make, work=work, stop_when_caught_up=True, heartbeat_interval=0.01, commit_interval=0.01
    )
    rig.consume_until(lambda: rig.loop._caught_up)
    rig.engine.write(ONE, records(1, 0))
    rig.engine.assign(ONE)
    rig.consume_until(lambda: len(work.started) == 4 and not rig.loop._caught_up)
    rig.consume_until(lambda: not rig.reports[-1]["caught_up"])
    work.release()
    rig.consume_until(lambda: rig.loop._caught_up)
    assert work.offsets(1) == [0]


# -- a restart's way out ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("restart", "seat", "code"),
    [(False, Seat.LEAVE, 0), (True, Seat.KEEP, 4), (True, Seat.LEAVE, 4)],
)
def test_a_clean_drain(make: Make, restart: bool, seat: Seat, code: int) -> None:
    work = Work(blocked={(0, 1)})
    rig = started_rig(make, work=work)
    rig.take_in(2, started=True)
    rig.engine.on_poll = lambda: work.release() if rig.engine.polls % 7 == 0 else None
    ending = rig.drain(restart=restart, seat=seat)
    assert (ending.code, ending.clean, ending.reason, ending.stuck) == (code, True, "", ())
    assert work.offsets(0) == [0, 1]  # the record in flight finished, the next was not begun
    assert rig.engine.committed == {ZERO: Position(2)}
    assert rig.engine.closed is seat
    assert [r["state"] for r in rig.reports][-2:] == ["draining", "drained"]
    assert isinstance(rig.dispatcher._hands, Threads)
    assert not any(t.is_alive() for t in rig.dispatcher._hands._threads)


def test_nothing_held_is_left_at_once(make: Make) -> None:
    rig = make()
    ending = rig.drain()
    assert ending.clean
    assert rig.sync_commits() == []


def test_it_keeps_polling_while_a_handler_runs(make: Make) -> None:
    """The membership depends on it; the handler is only let go after the fiftieth poll."""
    work = Work(blocked={(0, 0)})
    rig = started_rig(make, work=work)
    rig.take_in(1, started=True)
    rig.engine.write(ONE, records(1, 0))
    enough = rig.engine.polls + 50

    def on_poll() -> None:
        if rig.engine.polls == enough - 40:
            rig.engine.assign(ONE)  # comes while draining: to be paused at once
        if rig.engine.polls >= enough:
            work.release()

    rig.engine.on_poll = on_poll
    assert rig.drain().clean
    assert rig.engine.paused == {ZERO, ONE}
    assert work.offsets(1) == []
    assert rig.engine.committed == {ZERO: Position(1)}


@pytest.mark.parametrize("times", [1, 2, 7])
def test_a_refused_last_commit_is_tried_again(make: Make, times: int) -> None:
    rig = started_rig(make)
    rig.take_in(3)
    rig.engine.refusals.extend([REFUSED] * times)
    polls = rig.engine.polls
    ending = rig.drain()
    assert ending.clean
    assert rig.engine.committed == {ZERO: Position(3)}
    assert len(rig.sync_commits()) == times + 1
    assert rig.engine.polls >= polls + times  # which lets a rebalance finish
    assert rig.tally.to_json()["commits"]["failed"] == times


def test_a_commit_that_is_never_taken_is_not_a_clean_end(make: Make) -> None:
    rig = started_rig(make)
    rig.take_in(3)
    rig.engine.always_refuse = REFUSED
    before = time.monotonic()
    ending = rig.drain(handlers=0.1, worker=0.4)
    assert time.monotonic() - before < PATIENCE
    assert (ending.code, ending.clean) == (Exit.FORCED, False)
    assert "could not be committed" in ending.reason
    assert rig.engine.closed is Seat.LEAVE
    assert len(rig.sync_commits()) > 1


def test_a_commit_that_is_fatal_is_not_a_clean_end(make: Make) -> None:
    rig = started_rig(make)
    rig.take_in(3)
    rig.engine.refusals.append(FENCED)
    ending = rig.drain()
    assert not ending.clean
    assert ending.code == Exit.FORCED
    assert len(rig.sync_commits()) == 1


def test_a_stuck_handler_is_named_and_the_rest_is_committed(make: Make) -> None:
    work = Work(blocked={(0, 2)})
    rig = started_rig(make, offsets=5, work=work)
    rig.engine.write(ONE, records(1, 0, 1))
    rig.engine.assign(ONE)
    rig.consume_until(lambda: len(work.started) == 5)
    assert sorted(rig.work.offsets(0)) == [0, 1]
    ending = rig.drain(handlers=0.05, worker=2.0, restart=True)
    assert (ending.code, ending.clean) == (Exit.FORCED, False)
    [stuck] = ending.stuck
    assert ending.reason == "the drain deadline passed with orders[0]@2 in flight"
    told = stuck.to_json()
    assert (told["topic"], told["partition"], told["offset"]) == ("orders", 0, 2)
    assert told["key"] == "key-2"
    assert told["age_seconds"] >= 0.05
    assert "making.py" in told["stack"]
    assert rig.engine.committed == {ZERO: Position(2), ONE: Position(2)}
    assert rig.engine.closed is Seat.LEAVE


def test_work_lost_while_draining_is_not_a_clean_end(make: Make) -> None:
    work = Work(blocked={(1, 0)})
    rig = started_rig(make, work=work)
    rig.engine.write(ONE, records(1, 0))
    rig.engine.assign(ONE)
    rig.consume_until(lambda: len(work.started) == 4)
    rig.engine.async_held = True  # or it would have been committed by then
    turn = rig.engine.polls + 3

    def on_poll() -> None:
        if rig.engine.polls == turn:
            rig.engine.lose(ZERO)
        if rig.engine.polls == turn + 3:
            work.release()

    rig.engine.on_poll = on_poll
    ending = rig.drain()
    assert (ending.code, ending.clean) == (Exit.FORCED, False)
    assert "taken away" in ending.reason
    assert rig.engine.committed == {ONE: Position(1)}


def test_what_a_poll_brought_and_a_fault_kept_from_being_fed_is_not_committed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = started_rig(make)
    rig.take_in(3)
    rig.engine.write(ZERO, records(0, 3, 4))

    def fault(_: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(rig.dispatcher, "feed", fault)
    fatal = rig.loop.consume(lambda: False)
    assert "AssertionError: a bug" in str(fatal)
    assert rig.engine.position[ZERO] == 5
    ending = rig.drain(fatal=fatal)
    assert (ending.code, ending.clean) == (Exit.CRASHED, False)
    assert rig.engine.committed == {ZERO: Position(3)}


def test_work_lost_between_the_order_and_the_poll_loop_is_not_a_clean_end(make: Make) -> None:
    """The order comes while a rebalance holds the poll loop."""
    rig = started_rig(make)
    rig.take_in(3)
    rig.dispatcher.drain(time.monotonic() + PATIENCE)
    rig.engine.lose(ZERO)
    ending = rig.drain()
    assert (ending.code, ending.clean) == (Exit.FORCED, False)
    assert "taken away" in ending.reason


def test_a_partition_lost_before_the_drain_does_not_taint_it(make: Make) -> None:
    rig = started_rig(make)
    rig.take_in(3)
    assert rig.dispatcher.wait_idle(PATIENCE)
    rig.engine.lose(ZERO)
    ending = rig.drain()
    assert ending.clean
    assert rig.engine.committed == {}


def test_a_handler_of_a_lost_partition_is_waited_for_too(make: Make) -> None:
    """0 and 4 mean that every handler finished, whoever owns the partition by now."""
    work = Work(blocked={(0, 0)})
    rig = started_rig(make, work=work)
    rig.take_in(1, started=True)
    rig.engine.lose(ZERO)
    ending = rig.drain(handlers=0.05, worker=0.5)
    assert ending.code == Exit.FORCED
    assert [str(s.working) for s in ending.stuck] == ["orders[0]@0"]


def test_a_fatal_kafka_failure_while_draining(make: Make) -> None:
    work = Work(blocked={(0, 1)})
    rig = started_rig(make, work=work)
    rig.take_in(2, started=True)

    def on_poll() -> None:
        threading.Thread(target=work.release).start()
        raise FENCED

    rig.engine.on_poll = on_poll
    ending = rig.drain()
    assert (ending.code, ending.clean, ending.reason) == (Exit.CRASHED, False, str(FENCED))
    assert work.offsets(0) == [0, 1]  # the record in flight was waited for
    assert rig.engine.committed == {ZERO: Position(2)}  # as far as the broker lets us
    assert rig.engine.closed is Seat.LEAVE


def test_a_failure_does_not_keep_finished_work_from_being_committed(make: Make) -> None:
    """With a commit under way and a poll that raises, the last commit is made all the same."""
    rig = started_rig(make)
    rig.take_in(3)
    assert rig.dispatcher.wait_idle(PATIENCE)
    rig.engine.async_held = True
    rig.loop._commit_soon(rig.dispatcher.committable())

    def broken() -> None:
        raise Unreadable("orders[1]: a record batch is corrupt")

    rig.engine.on_poll = broken
    failure = rig.consume_until(lambda: False)
    ending = rig.drain(fatal=failure)
    assert ending.code == Exit.CRASHED
    assert rig.engine.committed == {ZERO: Position(3)}


def test_sys_exit_while_draining_is_no_clean_end(make: Make) -> None:
    work = Work(blocked={(0, 1)}, error=SystemExit(0))
    work.failing[0, 1] = 1
    rig = started_rig(make, work=work)
    rig.take_in(2, started=True)
    rig.engine.on_poll = work.release
    ending = rig.drain()
    assert (ending.code, ending.clean) == (Exit.CRASHED, False)
    assert rig.engine.committed == {ZERO: Position(1)}


def test_a_commit_under_way_is_awaited_before_the_last_one(make: Make) -> None:
    rig = started_rig(make)
    rig.take_in(3)
    assert rig.dispatcher.wait_idle(PATIENCE)
    rig.loop._commit_soon(rig.dispatcher.committable())
    ending = rig.drain()
    assert ending.clean
    assert rig.engine.history == [("async", {ZERO: Position(3)})]  # it was enough
    assert rig.engine.committed == {ZERO: Position(3)}


def test_a_commit_under_way_that_never_answers_does_not_spoil_the_last_one(make: Make) -> None:
    work = Work(blocked={(0, 2)})
    rig = started_rig(make, work=work)
    rig.take_in(3, started=True)
    rig.engine.async_held = True
    rig.loop._commit_soon(rig.dispatcher.committable())
    assert rig.engine.history == [("async", {ZERO: Position(2)})]
    rig.engine.on_poll = work.release
    ending = rig.drain()
    assert ending.clean
    assert rig.engine.committed == {ZERO: Position(3)}
    assert rig.sync_commits() == [{ZERO: Position(3)}]


def test_an_older_answer_does_not_undo_a_newer_commit(make: Make) -> None:
    """The answer to the commit under way comes after the last commit was taken."""
    work = Work(blocked={(0, 2)})
    rig = started_rig(make, work=work)
    rig.take_in(3, started=True)
    rig.engine.async_held = True
    rig.loop._commit_soon(rig.dispatcher.committable())
    rig.engine.on_poll = work.release
    synced = rig.engine.commit

    def commit(offsets: Any, timeout: float) -> None:
        synced(offsets, timeout)
        rig.engine.async_held = False  # the next poll would tell of the older one

    rig.engine.commit = commit  # type: ignore[method-assign] # the broker's timing
    assert rig.drain().clean
    assert rig.sync_commits() == [{ZERO: Position(3)}]


def test_a_stop_while_draining_for_a_restart_gives_the_seat_up(make: Make) -> None:
    work = Work(blocked={(0, 1)})
    rig = started_rig(make, work=work)
    rig.take_in(2, started=True)

    def on_poll() -> None:
        rig.loop.reseat(Seat.LEAVE, restart=False)
        work.release()

    rig.engine.on_poll = on_poll
    ending = rig.drain(seat=Seat.KEEP, restart=True)
    assert (ending.code, ending.clean) == (Exit.STOPPED, True)
    assert rig.engine.closed is Seat.LEAVE


@pytest.mark.parametrize("waits", [False, True])
def test_a_dead_letter_is_waited_for_only_while_it_is_under_way(make: Make, *, waits: bool) -> None:
    """One that waits to be sent again is like a retry that waits: the record is handled again."""
    posted: list[Callable[[Exception | None], None]] = []
    there = threading.Event()

    def post(letter: Letter, over: Callable[[Exception | None], None]) -> None:
        posted.append(over)
        if waits:
            over(NotSent("orders.dead does not exist"))
        there.set()

    work = Work(error=Poison("never"))
    work.failing[0, 1] = 1
    rig = started_rig(make, work=work, post=post, then=dead_letter("orders.dead"))
    rig.consume_until(there.is_set)
    ending = rig.drain(handlers=0.05, restart=True)
    if waits:
        assert ending == Ending(Exit.RESTART, clean=True, reason="")
    else:
        assert (ending.code, ending.clean) == (Exit.FORCED, False)
        assert "dead letters of orders[0]@1 (to orders.dead)" in ending.reason
    assert rig.engine.committed == {ZERO: Position(1)}
    assert (len(posted), work.offsets(0)) == (1, [0])


def test_a_dead_letter_confirmed_while_draining_is_finished_work(make: Make) -> None:
    posted: list[Callable[[Exception | None], None]] = []
    work = Work(error=Poison("never"))
    work.failing[0, 1] = 1
    rig = started_rig(
        make, work=work, post=lambda _, over: posted.append(over), then=dead_letter("orders.dead")
    )
    rig.consume_until(lambda: bool(posted))

    def on_poll() -> None:
        if posted:
            posted.pop()(None)

    rig.engine.on_poll = on_poll
    assert rig.drain(restart=True) == Ending(Exit.RESTART, clean=True, reason="")
    assert rig.engine.committed == {ZERO: Position(2)}
    assert rig.tally.to_json()["topics"]["orders"]["records"]["dead_lettered"] == 1


def test_an_end_before_the_first_record() -> None:
    assert Ending.nothing_left(restart=True) == Ending(Exit.RESTART, clean=True, reason="")
    assert Ending.nothing_left(restart=False).code == Exit.STOPPED
