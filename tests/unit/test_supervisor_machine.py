"""The real supervisor against whatever may happen to it, in any order.

Signals, requests, hellos, statuses, garbage, last words, deaths and deadlines come as they
like. The oracle is told from the history alone, that is from what the processes were told,
said and did, and from what was asked: it knows nothing of how the supervisor decides.
"""

from __future__ import annotations

import os
import signal
from typing import Any
from unittest import mock

import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from penstock.lifecycle import Kind, Request
from penstock.supervisor.signals import REQUESTS
from tests.unit.supervising import FakeProcess, World
from tests.unit.test_supervisor import GARBAGE

pytestmark = pytest.mark.usefixtures("no_log", "_no_logs")

EXAMPLES = settings(max_examples=150, stateful_step_count=40, derandomize=True)

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
        self.left = False

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
        up=st.sampled_from([True, True, True, False]),
        mischief=st.integers(0, 2),
        helpful=st.sampled_from([True, True, False]),
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
        self.batch = batch
        #: How many things may still go wrong: with more of them, everything ends at once.
        self.mischief = mischief
        #: Whether everyone goes on as he ought to while it ends.
        self.helpful = helpful
        self.workers = workers
        self.world = World(first=1)
        self.lives: dict[int, Life] = {}
        self.ends: list[Request] = []
        self.draining_since: float | None = None
        self.spawned_before_drain = 0
        self.code_returned: int | None = None
        #: Slots whose seat somebody sits in: an earlier run's, and what was taken since.
        self.seated = set(range(workers)) if static == "environment" else set()
        if up:
            self.behave_until_running()

    # -- the world's side --------------------------------------------------------------

    def life(self, process: FakeProcess) -> Life:
        return self.lives.setdefault(process.pid, Life(process, self.world.host.now))

    def turn(self, times: int = 1) -> None:
        self.world.turn(times)
        for process in self.world.processes:
            self.life(process)
        status = self.world.sup.view.status()
        if self.draining_since is None and status.state == "draining":
            self.draining_since = self.world.host.now
            self.spawned_before_drain = len(self.world.processes)

    def behave_until_running(self) -> None:
        for _ in range(3):
            self.behave()
            self.turn(2)

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
        request = Request(kind, "http", hold=hold and kind is Kind.RESTART)
        if kind in (Kind.STOP, Kind.RESTART):
            self.ends.append(request)
        self.world.sup.view.ask(request)

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
        if process is not None and not self.life(process).greeted:
            self.mischief -= 1
            self.life(process).greeted = True
            process.hello(self.settings, subscriptions=2)

    @rule(which=st.integers(0, 3), caught_up=st.booleans(), joined=st.booleans())
    def status(self, which: int, caught_up: bool, joined: bool) -> None:
        process = self.one(which)
        if process is not None and self.life(process).consumed:
            self.sit(process)
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
    @rule(which=st.integers(0, 3), bad=st.sampled_from(BAD_WORDS), code=st.sampled_from(DEATHS))
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
                process.status()

    @rule(seconds=st.sampled_from([0.1, 0.1, 1.0, 1.0, 4.0, 16.0, 21.0, 125.0]))
    def wait(self, seconds: float) -> None:
        self.world.host.now += seconds
        self.turn()

    @rule(full=st.booleans())
    def room(self, full: bool) -> None:
        self.world.host.full = full

    # -- what processes do -------------------------------------------------------------

    def sit(self, process: FakeProcess) -> None:
        if self.static:
            self.seated.add(process.index)

    def leaves(self, process: FakeProcess, *, lingers: bool) -> None:
        """It obeys the last order it was given."""
        life, order = self.life(process), process.told("drain")[-1]
        if life.earned is None:
            life.earned = process.drained()
            if order["seat"] == "leave":
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
            since = asked.timestamp() - 1_700_000_000
            living = {w.pid for w in status.workers}
            for process in self.world.processes:
                if process.pid in living:
                    assert process.spawned_at >= since, "an older worker outlived the reload"
        assert status.reload.state != "given up" or status.reload.reason

    @invariant()
    def nothing_is_started_while_ending(self) -> None:
        if self.draining_since is not None:
            assert len(self.world.processes) == self.spawned_before_drain

    @invariant()
    def everyone_is_told_to_drain(self) -> None:
        """A static member's successor waits: it must not take the seat from who still has it."""
        if self.draining_since is None:
            return
        self.turn()
        first: dict[int, FakeProcess] = {}
        for process in self.world.alive():
            first.setdefault(process.index, process)
        for process in self.world.alive():
            if self.static and process is not first[process.index]:
                continue
            assert process.told("drain"), f"process {process.pid} does not know"

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
            return 0 if self.batch else None
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
            world.host.now += 0.5
            if self.helpful:
                self.behave()
            self.turn()
        assert self.over, "it does not end"
        code = world.sup.finish()
        note(f"exit {code}: {world.sup.lifecycle.reason}")
        self.judge(code)

    def judge(self, code: int) -> None:
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
        only_stops = all(r.kind is Kind.STOP for r in self.ends)
        if code == 0 and only_stops and self.static and self.known_static:
            assert not self.seated, "left the group, it says, and a seat is still taken"

    @property
    def known_static(self) -> bool:
        """What only the code says is not known before the first hello."""
        return self.static == "environment" or self.world.sup.settings is not None


def test_whatever_happens() -> None:
    run_state_machine_as_test(Supervising, settings=EXAMPLES)
