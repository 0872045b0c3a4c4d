"""The real supervisor against whatever may happen to it, in any order.

Signals, requests, hellos, statuses, garbage, last words, deaths and deadlines come as they
like. The oracle is told from the history alone, that is from what the processes were told,
said and did, and from what was asked: it knows nothing of how the supervisor decides.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from hypothesis import Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from penstock.lifecycle import Kind, Lifecycle, Outcome, Request, State
from penstock.supervisor import messages, service, verdict
from penstock.supervisor.child import Child
from penstock.supervisor.drain import Drain
from penstock.supervisor.messages import LastWords
from penstock.supervisor.reload import Reloads
from penstock.supervisor.replacement import Renewal, Replacement, Replacing
from penstock.supervisor.running import Running
from penstock.supervisor.seats import Seats
from penstock.supervisor.service import Supervisor
from penstock.supervisor.signals import REQUESTS
from penstock.supervisor.slots import Slots
from penstock.supervisor.verdict import Blame, End
from tests.unit.supervising import FakeProcess, World
from tests.unit.test_supervisor import GARBAGE

pytestmark = pytest.mark.usefixtures("no_log", "_no_logs")

EXAMPLES = settings(max_examples=15, stateful_step_count=40, derandomize=True)

ENDS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR2]
SIGNALS = [*ENDS, *[signal.SIGHUP, signal.SIGTSTP, signal.SIGCONT, signal.SIGTTIN] * 2]
ASKED = [Kind.STOP, Kind.RESTART, *[Kind.RELOAD, Kind.QUIET, Kind.RESUME] * 2]
#: How a process may die without having earned anything.
DEATHS = [0, 1, 2, 4, 17, 78, -signal.SIGKILL, -signal.SIGSEGV, -signal.SIGTERM]

BAD_HELLO: list[dict[str, Any]] = [
    {},
    {"settings": [], "concurrency": 1, "subscriptions": []},
    {"settings": {}, "concurrency": None, "subscriptions": [{"name": 1}]},
]
BAD_WORDS: list[dict[str, Any]] = [
    {},
    {"code": 4, "clean": 1, "reason": "", "stuck": []},
    {"code": 0, "clean": True, "reason": "", "stuck": 3},
]


@pytest.fixture
def _no_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.telemetry.logs.configure", lambda *_, **__: None)


class Life:
    """What the history knows of one process."""

    def __init__(self, process: FakeProcess, seen_at: float) -> None:
        self.process = process
        self.seen_at = seen_at
        self.greeted = False
        self.joined = False
        #: It said something that is no clean end, or something unreadable in place of one.
        self.tainted = False
        #: The clean end it told of after it had been told to drain: the code it is to end with.
        self.earned: int | None = None
        self.of_another_app = False
        #: As it last said.
        self.caught_up = False

    @property
    def consumed(self) -> bool:
        return bool(self.process.told("start"))

    @property
    def clean(self) -> bool:
        """Whether its end was a clean one (killed after its clean last words is no harm)."""
        code = self.process.code
        if self.tainted or self.earned is None:
            return False
        by_us = signal.SIGKILL in self.process.signals and code == -signal.SIGKILL
        return by_us or code == self.earned


class Supervising(RuleBasedStateMachine):
    """The world, and the history of it."""

    @initialize(
        workers=st.integers(1, 2),
        static=st.sampled_from([None, None, "code", "environment"]),
        stable=st.booleans(),
        batch=st.sampled_from([False, False, True]),
        up=st.booleans(),
        mischief=st.integers(0, 3),
        helpful=st.sampled_from([True, True, False]),
        early=st.sampled_from([None, None, *ENDS[::3]]),
        seen=st.booleans(),
    )
    def begin(
        self,
        workers: int,
        static: str | None,
        stable: bool,
        batch: bool,
        up: bool,
        mischief: int,
        helpful: bool,
        early: int | None,
        seen: bool,
    ) -> None:
        env = {"PENSTOCK_INSTANCE_ID": "billing"} if static == "environment" else {}
        self.env = mock.patch.dict(os.environ, env)
        self.env.start()
        self.static = static
        self.settings: dict[str, Any] = {
            "workers": workers,
            "stable_identity": stable and static is not None,
            "stop_when_caught_up": batch,
            **({"instance_id": "billing"} if static is not None else {}),
        }
        #: How many things may still go wrong: with more of them, everything ends at once.
        self.mischief = mischief
        #: Whether everyone goes on as he ought to while it ends.
        self.helpful = helpful
        self.workers = workers
        self.world = World(first=1)
        self.lives: dict[int, Life] = {}
        self.ends: list[Request] = []
        #: A batch run ended because it said that it had caught up.
        self.done_by_itself = False
        #: 1 once a reload was asked for that must be remembered.
        self.reloads = 0
        self.draining_since: float | None = None
        self.code_returned: int | None = None
        #: Slots whose seat somebody sits in: an earlier run's, and what was taken since.
        self.seated = set(range(workers)) if static else set[int]()
        if up:
            self.behave_until_running()
        elif early is not None:  # ended before it was up, the first hello on its way
            self.signalled(early, look=seen)
            self.behave()

    # -- the world's side --------------------------------------------------------------

    def life(self, process: FakeProcess) -> Life:
        return self.lives.setdefault(process.pid, Life(process, self.world.host.now))

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.world.turn(1)
            for process in self.world.processes:
                self.life(process)
            status = self.world.sup.view.status()
            if self.draining_since is None and status.state == "draining":
                self.draining_since = self.world.host.now
                if status.intent is not None and status.intent.requested_by == "batch":
                    self.done_by_itself = True
                    self.ends.append(Request(Kind.STOP, "batch"))
            if self.draining_since is None:
                self.no_slot_is_empty()
            else:
                self.everyone_is_told_to_drain()

    def behave_until_running(self) -> None:
        for _ in range(3):
            self.behave()
            self.turn(2)

    def in_slot(self, index: int) -> list[FakeProcess]:
        return [process for process in self.world.alive() if process.index == index]

    def one(self, number: int) -> FakeProcess | None:
        alive = self.world.alive()
        return alive[number % len(alive)] if alive else None

    def victim(self, number: int) -> FakeProcess | None:
        process = self.one(number)
        if process is not None:
            self.mischief -= 1
        return process

    # -- rules -------------------------------------------------------------------------

    @rule(times=st.integers(1, 2))
    def look(self, times: int) -> None:
        self.turn(times)

    @rule(number=st.sampled_from(SIGNALS), look=st.booleans())
    def signalled(self, number: int, look: bool) -> None:
        if self.over:
            return
        os.write(self.world.pipe.writer, bytes([number]))
        if number in ENDS:
            self.ends.append(REQUESTS[number])
        if look:
            self.turn()
            if number == signal.SIGHUP and not self.ends and self.draining_since is None:
                self.reloads = 1

    @rule(
        kind=st.sampled_from(
            [Kind.STOP, Kind.RESTART, *[Kind.RELOAD, Kind.QUIET, Kind.RESUME] * 2]
        ),
        hold=st.booleans(),
    )
    def asked(self, kind: Kind, hold: bool) -> None:
        if self.over:
            return
        self.turn()  # a request over HTTP must not overtake the signals in this history
        request = Request(kind, "http")
        if kind in (Kind.STOP, Kind.RESTART):
            self.ends.append(request)
        self.world.sup.view.ask(request)

    @rule(source=st.sampled_from(["http", "prestop"]))
    def asked_to_wait(self, source: str) -> None:
        """A held restart."""
        if not self.over:
            self.turn()
            request = Request(Kind.RESTART, source, hold=True)
            self.ends.append(request)
            self.world.sup.view.ask(request)

    @rule(
        hold=st.booleans(), stop=st.sampled_from(ENDS[:3]), gone=st.booleans(), each=st.booleans()
    )
    def a_stop_when_seats_were_kept(self, hold: bool, stop: int, gone: bool, each: bool) -> None:
        """By who is gone, or by who does not listen any more."""
        self.go_on(2)
        self.asked_to_wait("prestop") if hold else self.signalled(signal.SIGUSR2, look=True)
        for process in self.world.alive()[: None if each else 1]:
            if process.told("drain"):
                self.leaves(process, lingers=not gone)
        self.signalled(stop, look=True)
        if not gone:
            self.behave()

    @rule(index=st.integers(0, 1), gone=st.booleans())
    def a_stop_while_a_slot_is_empty(self, index: int, gone: bool) -> None:
        self.empty(index, gone=gone)
        self.signalled(signal.SIGTERM, look=True)

    @rule(index=st.integers(0, 1))
    def a_held_restart_while_a_slot_is_empty(self, index: int) -> None:
        self.empty(index, gone=True)
        if not self.over:
            request = Request(Kind.RESTART, "prestop", hold=True)
            self.ends.append(request)
            self.world.sup.view.ask(request)  # nobody has looked yet
            self.turn()

    def empty(self, index: int, *, gone: bool) -> None:
        """Where there is no memory for two; or just before, the seat's holder still there."""
        self.go_on(3)
        self.recycle(index, room=False)
        self.turn()
        for process in self.in_slot(index):
            if process.told("drain") and gone:
                self.leaves(process, lingers=False)

    @rule(index=st.integers(0, 1), room=st.booleans())
    def recycle(self, index: int, room: bool) -> None:
        if self.world.sup.slots.worker(index) is not None and not self.over:
            self.world.sup.replace(index, "memory", room=room)

    @rule(which=st.integers(0, 3))
    def hello(self, which: int) -> None:
        process = self.one(which)
        if process is not None and not self.life(process).greeted:
            self.life(process).greeted = True
            process.hello(self.settings)

    @precondition(lambda self: self.mischief > 0)
    @rule(which=st.integers(0, 3), bad=st.sampled_from(BAD_HELLO))
    def hello_that_nobody_can_read(self, which: int, bad: dict[str, Any]) -> None:
        process = self.one(which)
        if process is not None and not self.life(process).greeted:
            self.mischief -= 1
            self.life(process).greeted = True
            process.say("hello", **bad)

    @precondition(lambda self: self.mischief > 0)
    @rule(which=st.integers(0, 3))
    def hello_of_another_app(self, which: int) -> None:
        process = self.one(which)
        known = any(life.consumed for life in self.lives.values())
        if process is not None and known and not self.life(process).greeted:
            self.mischief -= 1
            self.life(process).greeted = True
            self.life(process).of_another_app = True
            process.hello(self.settings, subscriptions=2)

    @rule(which=st.integers(0, 3), caught_up=st.booleans(), joined=st.booleans())
    def status(self, which: int, caught_up: bool, joined: bool) -> None:
        process = self.one(which)
        if process is not None and self.life(process).consumed:
            self.sit(process)
            if not process.told("drain"):  # what it learns after that comes too late
                self.life(process).caught_up = caught_up
            process.status(caught_up=caught_up, joined=joined)

    @rule(which=st.integers(0, 3), data=st.sampled_from([g for g in GARBAGE if b"hello" not in g]))
    def garbage(self, which: int, data: bytes) -> None:
        process = self.one(which)
        if process is not None:
            process.write(data)

    @precondition(lambda self: self.mischief > 0)
    @rule(which=st.integers(0, 3), code=st.sampled_from([0, 1, 4, 78]))
    def fatal(self, which: int, code: int) -> None:
        process = self.victim(which)
        if process is not None:
            self.life(process).tainted = True
            process.say("fatal", code=code, reason="fenced")

    @rule(which=st.integers(0, 3), lingers=st.booleans())
    def leave(self, which: int, lingers: bool) -> None:
        process = self.one(which)
        if process is not None and process.told("drain"):
            self.leaves(process, lingers=lingers)

    @precondition(lambda self: self.mischief > 0)
    @rule(which=st.integers(0, 1), code=st.sampled_from(DEATHS), goes_on=st.booleans())
    def half_a_reload_and_a_death(self, which: int, code: int, goes_on: bool) -> None:
        self.half_a_reload()
        both = [p for p in self.world.alive() if len(self.in_slot(p.index)) > 1]
        if both:
            self.mischief -= 1
            both[which].end(code)
            if goes_on:
                self.go_on(2)

    @precondition(lambda self: not any(life.greeted for life in self.lives.values()))
    @rule(number=st.sampled_from(ENDS), looks=st.tuples(st.booleans(), st.booleans()))
    def an_end_before_the_first_hello(self, number: int, looks: tuple[bool, bool]) -> None:
        self.signalled(number, look=looks[0])
        self.behave()
        if looks[1]:
            self.turn(2)

    @precondition(lambda self: self.mischief > 0)
    @rule(number=st.sampled_from(ENDS), which=st.integers(0, 1), bad=st.sampled_from(BAD_WORDS))
    def an_end_in_words_that_nobody_can_read(
        self, number: int, which: int, bad: dict[str, Any]
    ) -> None:
        self.go_on(2)
        self.signalled(number, look=True)
        process = self.one(which)
        if process is not None and process.told("drain"):
            self.mischief -= 1
            self.life(process).tainted = True
            process.say("drained", **bad)
            process.end(4 if process.told("drain")[-1]["restart"] else 0)

    @precondition(lambda self: self.mischief > 0)
    @rule(which=st.integers(0, 3))
    def says_too_early_that_it_is_done(self, which: int) -> None:
        process = self.one(which)
        if process is not None and not process.told("drain"):
            self.mischief -= 1
            self.life(process).tainted = True
            process.drained(code=4)

    @precondition(lambda self: self.mischief > 0)
    @rule(which=st.integers(0, 3), bad=st.sampled_from(BAD_WORDS), code=st.sampled_from([0, 2, 4]))
    def last_words_that_nobody_can_read(self, which: int, bad: dict[str, Any], code: int) -> None:
        process = self.victim(which)
        if process is not None:
            self.life(process).tainted = True
            process.say("drained", **bad)
            process.end(code)

    @precondition(lambda self: self.mischief > 0)
    @rule(which=st.integers(0, 3), asked=st.booleans(), code=st.sampled_from([0, 2, 4]))
    def stuck(self, which: int, asked: bool, code: int) -> None:
        """Unclean, or clean without having been asked to."""
        process = self.one(which)
        if process is not None and (asked or not process.told("drain")):
            self.mischief -= 1
            self.life(process).tainted = True
            process.drained(clean=not asked, code=code, reason="orders[0]@7 in flight")
            process.end(code)

    @precondition(lambda self: self.mischief > 0)
    @rule(which=st.integers(0, 3), code=st.sampled_from(DEATHS))
    def die(self, which: int, code: int) -> None:
        process = self.victim(which)
        if process is not None:
            process.end(code)

    @rule(times=st.integers(1, 3))
    def go_on(self, times: int) -> None:
        """Everyone does what it is there for, and the supervisor sees it."""
        for _ in range(times):
            self.behave()
            self.turn(2)

    @rule()
    def half_a_reload(self) -> None:
        """Everyone is up, and a successor that can be used stands beside a worker."""
        self.go_on(3)
        self.signalled(signal.SIGHUP, look=True)
        for process in self.world.alive():
            if not self.life(process).greeted:
                self.life(process).greeted = True
                process.hello(self.settings)
        self.turn(2)

    @rule(look=st.booleans())
    def hup(self, look: bool) -> None:
        self.signalled(signal.SIGHUP, look=look)

    @rule(number=st.sampled_from(ENDS), look=st.booleans(), newest=st.booleans())
    def half_a_reload_and_an_end(self, number: int, look: bool, newest: bool) -> None:
        """And, perhaps, the successor is the quicker one to go."""
        self.half_a_reload()
        self.signalled(number, look=look)
        process = self.world.alive()[-1] if self.world.alive() else None
        if newest and process is not None and process.told("drain"):
            self.leaves(process, lingers=False)

    @rule()
    def behave(self) -> None:
        """Everyone does what it is there for; nobody has looked yet."""
        for process in self.world.alive():
            if not self.life(process).greeted:
                self.life(process).greeted = True
                process.hello(self.settings)
            elif process.told("drain"):
                self.leaves(process, lingers=False)
            elif process.told("start"):
                self.sit(process)
                process.status(caught_up=self.life(process).caught_up)

    @rule(seconds=st.sampled_from([0.1, 0.1, 1.0, 1.0, 4.0, 16.0, 21.0, 125.0]))
    def wait(self, seconds: float) -> None:
        self.world.later(seconds)
        self.turn()

    @rule(full=st.booleans())
    def room(self, full: bool) -> None:
        self.world.host.full = full

    # -- what processes do -------------------------------------------------------------

    def sit(self, process: FakeProcess) -> None:
        if self.static and self.life(process).earned is None:
            self.seated.add(process.index)

    def leaves(self, process: FakeProcess, *, lingers: bool) -> None:
        """It obeys the last order it was given."""
        life, order = self.life(process), process.told("drain")[-1]
        if not life.greeted:
            life.greeted = True
            process.hello(self.settings)
        if life.earned is None:
            life.earned = process.drained()
            if order["seat"] == "leave":
                before = [p for p in self.in_slot(process.index) if p.pid < process.pid]
                assert not (self.static and before), "it took the seat of one that is not done"
                self.seated.discard(process.index)
        if not lingers:
            process.end(life.earned)

    # -- the oracle --------------------------------------------------------------------

    @property
    def over(self) -> bool:
        return self.code_returned is not None or self.world.sup.over()

    @invariant()
    def it_always_answers(self) -> None:
        status = self.world.sup.view.status()
        self.world.sup.view.ready()
        if status.reload.state == "done":
            asked = status.reload.asked_at
            assert asked is not None
            since = asked.timestamp() - 1_700_000_000 - 0.001  # a datetime rounds
            living = {w.pid for w in status.workers}
            for process in self.world.processes:
                if process.pid in living:
                    assert process.spawned_at >= since, "an older worker outlived the reload"
        assert status.reload.state != "given up" or status.reload.reason
        assert status.reload.id >= self.reloads, "forgotten"

    @invariant()
    def nothing_is_started_while_ending(self) -> None:
        """But who gives up a seat that nobody else can, and does nothing else."""
        for process in self.world.processes:
            assert process.born_while is not State.STOPPED
            if process.born_while is State.DRAINING:
                assert self.static or not process.born_knowing
                assert not process.told("start")
                assert {order["seat"] for order in process.told("drain")} <= {"leave"}

    def everyone_is_told_to_drain(self) -> None:
        """A static member's successor waits: it must not take the seat from who still has it."""
        for process in self.world.alive():
            if self.static and process is not self.in_slot(process.index)[0]:
                continue
            orders = process.told("drain")
            assert orders, f"process {process.pid} does not know"
            assert orders[-1]["restart"] == (self.wanted() != 0 or not self.ends)

    def no_slot_is_empty(self) -> None:
        under_way = self.world.sup.replacing.current
        renewing = {under_way.index} if isinstance(under_way, Renewal) else set()
        if self.world.sup.settings is not None:
            assert renewing | {p.index for p in self.world.alive()} == set(range(self.workers))

    @invariant()
    def nobody_does_the_work_of_another_app(self) -> None:
        for life in self.lives.values():
            assert not (life.of_another_app and life.consumed)

    @invariant()
    def one_or_two_in_a_slot(self) -> None:
        alive = [process.index for process in self.world.alive()]
        assert all(alive.count(index) <= 2 for index in alive)
        consuming = [p.index for p in self.world.alive() if p.told("start") and not p.told("drain")]
        assert len(consuming) == len(set(consuming))

    @invariant()
    def a_held_restart_waits(self) -> None:
        sup = self.world.sup
        if not self.ends or not self.ends[0].hold or not sup.over():
            return
        released = [r for r in self.ends[1:] if r.kind is Kind.STOP]
        budget = sup.view.status().drain
        assert released or (budget is not None and budget.left_seconds == 0) or self.failed()

    def failed(self) -> bool:
        return self.world.sup.view.status().failure is not None

    def wanted(self) -> int | None:
        """The planned code that was asked for; None if nothing was."""
        if not self.ends:
            return None
        stops = [r for r in self.ends if r.kind is Kind.STOP]
        if self.ends[0].hold:
            stops = [r for r in stops if not r.releases_hold]
        return 0 if stops else 4

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.finish()
        finally:
            self.world.close()
            self.env.stop()

    def finish(self) -> None:
        """Ask for a restart if nobody asked for an end, and see that it ends in time."""
        world = self.world
        if not self.over:
            os.write(world.pipe.writer, bytes([signal.SIGUSR2]))
            self.ends.append(REQUESTS[signal.SIGUSR2])
            self.turn(2)
        deadline = world.host.now + 26
        while not self.over and world.host.now < deadline:
            world.later(0.5)
            if self.helpful:
                self.behave()
            self.turn()
        assert self.over, "it does not end"
        code = world.sup.run()
        note(f"exit {code}: {world.sup.lifecycle.reason}")
        self.judge(code)
        world.sup.view.ask(Request(Kind.STOP, "http"))
        assert world.sup.lifecycle.exit_code() == code, "the last moment changed the code"

    def judge(self, code: int) -> None:
        status = self.world.sup.view.status()
        told = ("done", "given up") if status.reload.id else ("none",)
        assert status.reload.state in told, "nobody learns what became of the reload"
        assert [record.code for record in self.world.host.records] in ([code], [])
        for process in self.world.processes:
            assert process.is_reaped, f"process {process.pid} was left behind"
            assert process.fake_board.closed
        if code not in (0, 4):
            return
        for life in self.lives.values():
            assert life.clean or not life.consumed, (
                f"{code}, and process {life.process.pid} ended {life.process.code} "
                f"(told {life.earned}, tainted {life.tainted})"
            )
        assert code == self.wanted()
        if self.done_by_itself:
            last = {life.process.index: life for life in self.lives.values() if life.consumed}
            assert all(life.caught_up for life in last.values())
        goes = self.ends[0].hold and not self.settings["stable_identity"]  # with its pod
        if code == 0 or goes:
            assert not self.seated, f"{code}, and the seats of {self.seated} are still held"


def explore(rounds: int, looking: settings) -> None:
    """Several short searches find more than a long one, which varies what it has found."""
    for number in range(rounds):
        machine = type(f"Supervising{number}", (Supervising,), {})  # its name is the seed
        run_state_machine_as_test(machine, settings=looking)


def test_whatever_happens() -> None:
    explore(12, EXAMPLES)


# -- what the machine is worth: faults, put back one at a time -------------------------------

Patch = pytest.MonkeyPatch


def _swallowed_end(patch: Patch) -> None:
    """The end of a worker that is being replaced is the reload's, whatever it is."""
    begin, real = Replacement.__init__, verdict.blame
    replaced = []

    def init(self: Replacement, sup: Any, old: Child, new: Child, reason: str) -> None:
        replaced.append(old)
        begin(self, sup, old, new, reason)

    def blame(worker: Any, end: End, *, spare: bool) -> Blame:
        mine = worker in replaced and worker.draining
        return Blame.NOBODY if mine else real(worker, end, spare=spare)

    patch.setattr(Replacement, "__init__", init)
    patch.setattr(service, "blame", blame)


def _late_hello_opens(patch: Patch) -> None:
    """A hello that is read while draining opens the service, and starts the other workers."""

    def greeted(self: Supervisor, child: Child) -> None:
        if child.hello is not None and self.settings is None:
            self._open(child)

    def spawn(self: Supervisor, index: int, *, to_leave: bool = False) -> Child:
        return self._admit(self.host.spawn(index, self._target), to_leave=to_leave)

    patch.setattr(Supervisor, "_greeted", greeted)
    patch.setattr(Supervisor, "spawn", spawn)


def _trusted_status(patch: Patch) -> None:
    """A status is taken for what it ought to be."""

    def reported(self: Child, message: Any) -> None:
        try:
            self.tally = messages.read_tally(message)
        except ValueError as error:
            raise RuntimeError("PID 1 ends") from error

    patch.setattr(Child, "_reported", reported)


def _trusted_hello(patch: Patch) -> None:
    """A hello that cannot be read leaves a worker that nobody waits for."""
    patch.setattr(Child, "unusable", property(lambda _: None, lambda _, __: None), raising=False)


def _reload_told_nowhere(patch: Patch) -> None:
    patch.setattr(Reloads, "over", lambda *_, **__: None)


def _forgotten_reload(patch: Patch) -> None:
    """HUP while starting is refused."""
    real = Lifecycle.request

    def request(self: Lifecycle, asked: Request, *, alive: bool) -> Outcome:
        if asked.kind is Kind.RELOAD and self.state is State.STARTING:
            return Outcome.REFUSED
        return real(self, asked, alive=alive)

    patch.setattr(Lifecycle, "request", request)


def _seat_left_behind(patch: Patch) -> None:
    """A worker without a hello is killed at once, whoever sits in its seat."""
    patch.setattr(Drain, "_gives_up_seat", lambda *_: False)
    patch.setattr(Drain, "seats_left", lambda _: [])


def _seat_of_who_is_gone(patch: Patch) -> None:
    """A stop comes when a worker has gone and kept its seat: nobody gives it up."""
    patch.setattr(Drain, "seats_left", lambda _: [])


def _order_is_enough(patch: Patch) -> None:
    """Whoever was told to leave has left, though the order came when it had closed."""

    def ended(self: Seats, child: Child) -> None:
        if child.order is not None and child.order[1] == "leave":
            self._given_up.add(child.index)

    patch.setattr(Seats, "ended", ended)


def _seat_of_an_empty_slot(patch: Patch) -> None:
    """A slot that is empty for a moment, because memory is short, is not looked at."""
    begin, real = Renewal.__init__, Drain.seats_left
    renewed = set()

    def init(self: Renewal, sup: Any, old: Child, reason: str) -> None:
        renewed.add(old.pid)
        begin(self, sup, old, reason)

    def seats_left(self: Drain) -> list[int]:
        sup = self._sup
        last = {p.index: p.pid for p in getattr(sup.host, "processes", ())}
        return [n for n in real(self) if last.get(n) not in renewed]

    patch.setattr(Renewal, "__init__", init)
    patch.setattr(Drain, "seats_left", seats_left)


def _unknown_is_dynamic(patch: Patch) -> None:
    """What the code says of seats does not matter before the first hello."""
    real = Drain._static

    def static(self: Drain) -> bool:
        return real(self) if self._sup.settings else bool(os.environ.get("PENSTOCK_INSTANCE_ID"))

    patch.setattr(Drain, "_static", static)


def _late_hello_is_not_read(patch: Patch) -> None:
    """How many seats there are is not learned while ending."""
    real = Supervisor._greeted

    def greeted(self: Supervisor, child: Child) -> None:
        if not self.lifecycle.ending:
            real(self, child)

    patch.setattr(Supervisor, "_greeted", greeted)


def _only_a_stop_leaves(patch: Patch) -> None:
    """A held restart takes seats with the pod that somebody kept."""
    real = Drain.seats_left

    def seats_left(self: Drain) -> list[int]:
        return [] if self._sup.lifecycle.held else real(self)

    patch.setattr(Drain, "seats_left", seats_left)


def _too_late_a_stop(patch: Patch) -> None:
    """A stop counts that comes when nobody can give a seat up any more."""
    patch.setattr(Supervisor, "_ended", Supervisor.over)


def _seat_taken_away(patch: Patch) -> None:
    """A successor is told to leave while the worker before it still commits."""
    real = Drain._tell

    def tell(self: Drain, now: float) -> None:
        before = Slots.__iter__
        with patch.context() as alone:
            alone.setattr(
                Slots, "__iter__", lambda s: iter([[c] for slot in before(s) for c in slot])
            )
            real(self, now)

    patch.setattr(Drain, "_tell", tell)


def _not_in_the_table(patch: Patch) -> None:
    """A successor is kept beside the table."""

    def everyone(self: Slots) -> list[Child]:
        return [slot[0] for slot in self]

    patch.setattr(Slots, "everyone", everyone)
    patch.setattr(Drain, "_tell", lambda *_: None)


def _empty_slot(patch: Patch) -> None:
    """The death of a successor is never the service's, though nobody is left for the slot."""
    patch.setattr(Supervisor, "_is_spare", lambda self, c: self.slots.before(c) is not None)


def _planned_failure(patch: Patch) -> None:
    """A worker's failure may have the code 0 or 4."""
    patch.setattr(service, "failing", lambda code: code)


def _believed_words(patch: Patch) -> None:
    """Last words that cannot be read are clean."""
    patch.setattr(
        messages, "read_drained", lambda said: LastWords(said.get("code", 4), clean=True, reason="")
    )


def _unasked_words(patch: Patch) -> None:
    """Clean last words are believed that came before the order to drain."""

    def drained(self: Child, message: Any) -> None:
        self.last_words = messages.read_drained(message)

    patch.setattr(Child, "_drained", drained)


def _code_is_enough(patch: Patch) -> None:
    """0 and 4 are believed without a word."""
    real = verdict.judge

    def judge(worker: Any, code: int) -> End:
        return End(code, planned=True, reason="") if code in (0, 4) else real(worker, code)

    patch.setattr(service, "judge", judge)


def _killed_is_discarded(patch: Patch) -> None:
    """Whoever we end ourselves costs nothing."""
    real = verdict.judge

    def judge(worker: Any, code: int) -> End:
        if worker.killed:
            return End(0, planned=True, reason="", counts=False)
        return real(worker, code)

    patch.setattr(service, "judge", judge)
    patch.setattr(Supervisor, "fail", lambda *_, **__: None)


def _no_deadline(patch: Patch) -> None:
    patch.setattr(Drain, "_keep_deadline", lambda *_: None)


def _told_once(patch: Patch) -> None:
    """A stop that outranks a restart reaches nobody."""
    real = Child.drain

    def drain(self: Child, **order: Any) -> None:
        if self.order is None:
            real(self, **order)

    patch.setattr(Child, "drain", drain)


def _impatient(patch: Patch) -> None:
    """A held restart does not wait."""
    patch.setattr(Lifecycle, "waits_for_release", property(lambda _: False))


def _caught_up_in_between(patch: Patch) -> None:
    """A batch is done although a worker that just came says nothing yet."""
    real = Running._stop_if_caught_up

    def stop_if_caught_up(self: Running) -> None:
        with patch.context() as hasty:
            hasty.setattr(Replacing, "busy", property(lambda _: False))
            hasty.setattr(
                Slots, "workers", lambda s: [c for c in s.everyone() if c.facts.joined] * 2
            )
            hasty.setattr(Supervisor, "places", 2 * len(self._sup.slots.workers()))
            real(self)

    patch.setattr(Running, "_stop_if_caught_up", stop_if_caught_up)


def _two_at_a_time(patch: Patch) -> None:
    """A worker is replaced while another one is."""
    patch.setattr(
        Replacing, "replace", lambda self, index, reason, room: self._begin(index, reason)
    )


FAULTS = [
    _swallowed_end,
    _late_hello_opens,
    _trusted_status,
    _trusted_hello,
    _reload_told_nowhere,
    _forgotten_reload,
    _seat_left_behind,
    _seat_of_who_is_gone,
    _order_is_enough,
    _seat_of_an_empty_slot,
    _unknown_is_dynamic,
    _late_hello_is_not_read,
    _only_a_stop_leaves,
    _too_late_a_stop,
    _seat_taken_away,
    _not_in_the_table,
    _empty_slot,
    _planned_failure,
    _believed_words,
    _unasked_words,
    _code_is_enough,
    _killed_is_discarded,
    _no_deadline,
    _told_once,
    _impatient,
    _caught_up_in_between,
    _two_at_a_time,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_the_machine_finds(fault: Callable[[Patch], None], monkeypatch: Patch) -> None:
    fault(monkeypatch)
    looking = settings(EXAMPLES, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises((AssertionError, RuntimeError)):
        explore(100, looking)
