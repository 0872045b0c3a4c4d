"""The real supervisor, with processes, pipes and a clock that the test moves."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock.board import Working
from penstock.lifecycle import Kind, Outcome, Request
from penstock.supervisor.replacement import PATIENCE
from penstock.telemetry.histogram import Histogram
from penstock.telemetry.tally import Tally
from tests.unit.supervising import World

pytestmark = pytest.mark.usefixtures("no_log")

RESTART = Request(Kind.RESTART, "http")
STATIC = {"instance_id": "billing"}


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., World]]:
    monkeypatch.setattr("penstock.telemetry.logs.configure", lambda *_, **__: None)
    worlds = []

    def world(first: int = 1) -> World:
        worlds.append(World(first))
        return worlds[-1]

    yield world
    for each in worlds:
        each.close()


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    """One worker, running."""
    made = make()
    made.run_up()
    return made


def reloading(world: World) -> None:
    """HUP, and the replacement has said hello: the old worker is told to drain."""
    world.send(signal.SIGHUP)
    world.processes[-1].hello()
    world.turn()
    assert world.processes[-2].told("drain")


# -- the plain way ---------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGUSR2, 4)])
def test_earned(world: World, number: int, code: int) -> None:
    world.send(number)
    assert world.ends_by_itself() == code
    assert [record.code for record in world.host.records] == [code]


def test_the_first_hello_opens_the_service_and_brings_the_other_workers(
    make: Callable[..., World],
) -> None:
    world = make()
    world.processes[0].hello({"workers": 3})
    world.turn()
    assert [process.index for process in world.processes] == [0, 1, 2]
    assert world.host.server.running
    assert not world.sup.ever_started


def test_a_worker_that_cannot_be_started_ends_the_service(make: Callable[..., World]) -> None:
    world = make()
    world.host.full = True
    world.processes[0].hello({"workers": 2})
    world.turn()
    assert world.ends_by_itself() == 1
    assert "could not be started" in world.host.records[0].reason


# -- reload ----------------------------------------------------------------------------


def test_one_after_another(make: Callable[..., World]) -> None:
    world = make(first=3)
    world.run_up({"workers": 3})
    old = world.alive()
    world.send(signal.SIGHUP)
    for index in range(3):
        assert world.sup.view.status().reload.state == "running"
        new = world.processes[-1]
        assert (new.index, len(world.processes)) == (index, 4 + index)
        assert not old[index].told("drain")  # not before the new one has imported the code
        new.hello({"workers": 3})
        world.turn()
        assert not any(process.told("drain") for process in old[index + 1 :])
        assert not new.told("start")
        old[index].leave()
        world.turn()
        assert new.told("start")
        assert len(world.processes) == 4 + index  # not before this one has joined
        new.status()
        world.turn()
    reload = world.sup.view.status().reload
    assert (reload.state, reload.id, reload.requested_by) == ("done", 1, "SIGHUP")
    assert world.sup.worker_exits == {("4", "RESTART", True): 3}
    world.send(signal.SIGTERM)
    assert world.ends_by_itself() == 0


def test_new_code_that_does_not_import_leaves_the_old_one_alone(world: World) -> None:
    world.send(signal.SIGHUP)
    world.processes[1].say("fatal", code=78, reason="importing shop failed")
    world.processes[1].end(78)
    world.turn()
    reload = world.sup.view.status().reload
    assert (reload.state, reload.reason) == ("given up", "worker 0: importing shop failed")
    assert b'penstock_reloads_total{outcome="given_up"} 1.0' in world.sup.view.metrics("")[0]
    assert not world.processes[0].told("drain")
    assert world.sup.view.ready().ok
    world.send(signal.SIGTERM)
    assert world.ends_by_itself() == 0


def _late(world: World) -> None:
    world.host.now += PATIENCE + 1
    world.processes[0].status()  # all the while
    world.turn()


def _of_another_app(world: World) -> None:
    world.processes[-1].hello(subscriptions=2)


def _of_another_version(world: World) -> None:
    world.processes[-1].say("hello", settings={}, concurrency="one", subscriptions=[])


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (_late, "did not come up"),
        (_of_another_app, "2 subscriptions"),
        (_of_another_version, "cannot be understood"),
    ],
)
def test_a_successor_that_cannot_be_used(
    world: World, trouble: Callable[[World], None], words: str
) -> None:
    world.send(signal.SIGHUP)
    trouble(world)
    world.turn(3)
    assert world.processes[1].code == -signal.SIGKILL
    assert words in world.sup.view.status().reload.reason
    assert not world.processes[0].told("drain")
    world.send(signal.SIGUSR2)
    assert world.ends_by_itself() == 4


def test_a_machine_without_room_gives_the_reload_up(world: World) -> None:
    world.host.full = True
    world.send(signal.SIGHUP)
    assert world.sup.view.status().reload.state == "given up"
    world.host.full = False
    world.send(signal.SIGHUP)
    assert world.sup.view.status().reload.state == "running"


def test_a_reload_asked_for_while_starting_waits(make: Callable[..., World]) -> None:
    world = make()
    world.send(signal.SIGHUP)
    assert world.sup.view.ask(Request(Kind.RELOAD, "http")) is Outcome.REPEATED
    assert len(world.processes) == 1
    world.run_up()
    assert len(world.processes) == 2
    assert world.sup.view.status().reload.state == "running"


def test_a_reload_asked_for_while_one_runs_reaches_its_workers_too(world: World) -> None:
    reloading(world)
    assert world.sup.view.ask(Request(Kind.RELOAD, "http")) is Outcome.ACCEPTED
    world.processes[0].leave()
    world.turn()
    world.processes[1].status()
    world.turn(3)
    assert len(world.processes) == 3
    reload = world.sup.view.status().reload
    assert (reload.state, reload.id) == ("running", 2)


def test_the_end_gives_a_reload_up(world: World) -> None:
    reloading(world)
    world.send(signal.SIGTERM)
    reload = world.sup.view.status().reload
    assert (reload.state, reload.reason) == (
        "given up",
        "the service is ending: stop by SIGTERM",
    )
    assert world.sup.view.ask(Request(Kind.RELOAD, "http")) is Outcome.REFUSED


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGUSR2, None])
@pytest.mark.parametrize("how", ["stuck", "killed"])
def test_an_unclean_end_during_a_reload_stays_unclean(
    world: World, stop: signal.Signals | None, how: str
) -> None:
    """Whether the service is asked to end meanwhile, or would go on with the successor."""
    reloading(world)
    old = world.processes[0]
    if stop is not None:
        world.send(stop)
    if how == "stuck":
        old.end(old.drained(clean=False, code=2, reason="orders[0]@7 in flight"))
    else:
        old.end(-signal.SIGKILL)
    world.turn()
    assert world.ends_by_itself() == {"stuck": 2, "killed": 137}[how]


def test_an_old_worker_that_does_not_drain_in_time_is_named_and_ended(world: World) -> None:
    reloading(world)
    old = world.processes[0]
    old.fake_board.held = [Working(0, "orders", 3, 42, 1, b"k", world.host.now, 42)]
    world.pass_time(19.9)
    assert old.alive
    world.pass_time(0.1)
    assert old.code == -signal.SIGKILL
    assert world.ends_by_itself() == 2
    [stuck] = world.host.records[0].in_flight_at_deadline
    assert (stuck.topic, stuck.partition, stuck.offset) == ("orders", 3, 42)


def test_a_successor_that_dies_while_the_old_worker_drains(world: World) -> None:
    reloading(world)
    world.processes[1].end(-signal.SIGSEGV)
    world.turn()
    assert world.sup.lifecycle.ending  # nobody is left for the slot
    assert world.ends_by_itself() == 139


def test_a_successor_that_dies_after_the_stop_cost_nothing(world: World) -> None:
    reloading(world)
    world.send(signal.SIGTERM)
    world.processes[1].end(-signal.SIGSEGV)
    assert world.ends_by_itself() == 0


def test_quiet_reaches_the_successor_too(world: World) -> None:
    world.send(signal.SIGTSTP)
    reloading(world)
    world.processes[0].leave()
    world.turn()
    kinds = [message["t"] for message in world.processes[1].read()]
    assert kinds == ["start", "quiet"]


def test_a_batch_is_not_caught_up_while_a_worker_is_replaced(make: Callable[..., World]) -> None:
    world = make(first=2)
    settings = {"workers": 2, "stop_when_caught_up": True}
    world.run_up(settings)
    assert world.sup.replace(0, "memory") is not None
    for process in world.alive()[:2]:
        process.status(caught_up=True)
    world.turn()
    assert not world.sup.lifecycle.ending
    new = world.processes[-1]
    new.hello(settings)
    world.turn()
    world.processes[0].leave()
    world.turn()
    assert not world.sup.lifecycle.ending
    new.status(caught_up=True)
    world.turn(3)
    assert world.ends_by_itself() == 0


# -- one worker, for another reason ----------------------------------------------------


def test_one_worker_is_replaced_on_purpose(make: Callable[..., World]) -> None:
    world = make(first=2)
    world.run_up({"workers": 2})
    replacement = world.sup.replace(1, "memory")
    assert replacement is not None
    assert world.sup.replace(0, "memory") is None  # one at a time
    new = world.processes[-1]
    new.hello({"workers": 2})
    world.turn()
    world.processes[1].leave()
    world.turn()
    new.status()
    world.turn()
    assert world.sup.replacing.current is None
    assert replacement.failed is None
    assert world.sup.view.status().reload.state == "none"
    assert [w.pid for w in world.sup.view.status().workers] == [world.processes[0].pid, new.pid]


def test_a_reload_waits_for_a_replacement_under_way(world: World) -> None:
    world.sup.replace(0, "memory")
    world.send(signal.SIGHUP)
    assert world.sup.view.status().reload.state == "wanted"
    assert len(world.processes) == 2
    world.processes[1].end(-signal.SIGKILL)
    world.turn(3)
    assert world.sup.view.status().reload.state == "running"
    assert world.sup.replace(0, "memory") is None


# -- messages that cannot be read ------------------------------------------------------


def _other_buckets() -> dict[str, Any]:
    tally = Tally(["orders"])
    tally.count("orders", "done", 7)
    data = tally.to_json()
    other = Histogram((1.0, 2.0))
    other.observe(1.5)
    data["topics"]["orders"]["processing"] = other.to_json()
    return data


def test_the_counts_of_another_version_are_counted(world: World) -> None:
    """After an upgrade and a reload the workers are of another version than PID 1."""
    world.processes[0].status(tally=_other_buckets())
    world.turn()
    assert (
        b'penstock_records_total{outcome="done",topic="orders"} 7.0'
        in world.sup.view.metrics("")[0]
    )


GARBAGE = [
    b"\xff\xfe\n",
    b"[]\n",
    b"[" * 100_000 + b"\n",
    b"{}\n",
    b'{"t":null}\n',
    b'{"t":["status"]}\n',
    b'{"t":"status"}\n',
    b'{"t":"status","tally":7,"joined":"yes","assignment":[],"lag":{"a":{"x":1}},"work":3}\n',
    b'{"t":"status","tally":{"topics":{"a":{}}},"lag":{"a":{"0":-1}},"assignment":{"a":["0"]}}\n',
    b'{"t":"status","warnings":[1],"state":{},"work":{"retrying":1e400,"breaker":null}}\n',
    b'{"t":"hello"}\n',
    b'{"t":"fatal"}\n',
    b'{"t":"fatal","code":"4","reason":null}\n',
    b'{"t":"novelty"}\n',
    b'{"t":"merged"}\n',
    b'{"t":"merged","ids":7}\n',
    b'{"t":"merged","ids":[{"a":1},null,2]}\n',
]


@pytest.mark.parametrize("data", GARBAGE, ids=lambda data: repr(data[:40]))
def test_garbage_changes_nothing(
    world: World, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    monkeypatch.setattr(world.sup, "log", _Log(warned))
    before = world.sup.view.status().workers
    for _ in range(2):
        world.processes[0].write(data)
        world.turn()
    assert len(warned) == 1  # once a worker
    assert world.sup.view.status().workers == before
    assert world.sup.view.metrics("")
    world.send(signal.SIGUSR2)
    assert world.ends_by_itself() == 4


class _Log:
    def __init__(self, warned: list[str]) -> None:
        self._warned = warned

    def warning(self, event: str, **_: Any) -> None:
        self._warned.append(event)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"code": 4, "clean": "yes", "reason": "", "stuck": []},
        {"code": 4, "clean": True, "reason": "", "stuck": [7]},
        {"code": 4, "clean": True, "reason": "", "stuck": [{"topic": "a"}]},
        {"code": None, "clean": True, "reason": "", "stuck": []},
    ],
)
def test_last_words_that_cannot_be_read_are_not_clean(world: World, fields: dict[str, Any]) -> None:
    world.send(signal.SIGUSR2)
    world.processes[0].say("drained", **fields)
    world.processes[0].end(4)
    assert world.end() == 1
    assert "could not be read" in world.host.records[0].reason


def test_clean_words_before_the_order_to_drain_are_not_believed(world: World) -> None:
    world.processes[0].drained(code=4)
    world.turn()
    world.send(signal.SIGUSR2)
    world.processes[0].end(4)
    assert world.end() == 1


@pytest.mark.parametrize("code", [0, 4])
def test_a_fatal_message_has_no_planned_code(world: World, code: int) -> None:
    world.processes[0].say("fatal", code=code, reason="no")
    world.turn()
    assert world.ends_by_itself() == 1


def test_a_hello_that_cannot_be_read_is_a_failed_start(make: Callable[..., World]) -> None:
    world = make()
    world.processes[0].say("hello", settings=[], concurrency=1, subscriptions=[{}])
    world.turn()
    assert world.ends_by_itself() == 1
    assert "cannot be understood" in world.sup.lifecycle.reason


# -- stopped before it ran -------------------------------------------------------------


def test_a_hello_read_while_draining_opens_nothing(make: Callable[..., World]) -> None:
    draining = make()
    draining.sup.view.ask(Request(Kind.STOP, "http"))
    draining.processes[0].hello({"workers": 3})
    assert draining.ends_by_itself() == 0
    assert len(draining.processes) == 1
    assert not draining.host.server.running


def test_before_the_first_hello_nobody_knows_whether_there_is_a_seat(
    make: Callable[..., World],
) -> None:
    world = make(first=2)
    world.send(signal.SIGTERM)
    assert all(process.alive and process.told("drain") for process in world.processes)
    world.processes[0].hello()
    world.turn()
    assert [process.code for process in world.processes] == [None, -signal.SIGKILL]
    assert world.ends_by_itself() == 0


def test_what_the_application_says_of_seats_is_learned_while_ending(
    make: Callable[..., World],
) -> None:
    """All of them are given up, by as many processes; and nothing else is opened."""
    world = make()
    world.send(signal.SIGTERM)
    world.processes[0].hello({**STATIC, "workers": 3})
    world.turn()
    assert [process.index for process in world.processes] == [0, 1, 2]
    assert [seats(world, number) for number in range(3)] == [["leave"]] * 3
    assert not world.host.server.running
    assert world.ends_by_itself() == 0


def test_a_stop_after_a_restart_before_the_first_hello(make: Callable[..., World]) -> None:
    """Whom the restart ended cannot tell any more: another one has to."""
    world = make()
    for number in (signal.SIGUSR2, signal.SIGTERM):
        os.write(world.pipe.writer, bytes([number]))
        world.turn(1)
    world.turn()
    assert (world.processes[0].code, seats(world, 1)) == (-signal.SIGKILL, ["leave"])
    world.processes[1].hello()
    assert world.ends_by_itself() == 0


def test_an_application_whose_import_hangs_may_have_a_seat(make: Callable[..., World]) -> None:
    world = make()
    world.send(signal.SIGTERM)
    world.pass_time(25)
    assert world.end() == 2
    assert "PENSTOCK_INSTANCE_ID" in world.sup.lifecycle.reason


def test_a_static_member_comes_up_to_give_its_seat_up(
    make: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_INSTANCE_ID", "billing")
    world = make()
    world.send(signal.SIGTERM)
    [order] = world.processes[0].told("drain")
    assert (order["seat"], order["restart"]) == ("leave", False)
    world.pass_time(3)
    world.processes[0].hello()
    world.turn()
    assert world.processes[0].alive
    assert world.ends_by_itself() == 0


def test_a_static_member_that_never_comes_up_has_not_left(
    make: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_INSTANCE_ID", "billing")
    world = make()
    world.send(signal.SIGTERM)
    world.pass_time(25)
    assert world.end() == 2
    assert "seat" in world.sup.lifecycle.reason


def test_a_static_member_that_is_to_be_restarted_is_discarded_at_once(
    make: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_INSTANCE_ID", "billing")
    world = make()
    world.send(signal.SIGUSR2)
    assert world.end() == 4


@pytest.fixture
def static(make: Callable[..., World]) -> World:
    """One static member, running, that is being reloaded: the successor has not come up."""
    world = make()
    world.run_up(STATIC)
    world.send(signal.SIGHUP)
    return world


def seats(world: World, number: int) -> list[str]:
    return [order["seat"] for order in world.processes[number].told("drain")]


def test_hup_then_term_the_old_worker_leaves_and_nobody_takes_its_seat_away(static: World) -> None:
    """A successor that left for it would fence the worker that still commits."""
    static.send(signal.SIGTERM)
    assert (seats(static, 0), seats(static, 1)) == (["leave"], [])
    static.processes[0].leave()
    static.turn()
    assert seats(static, 1) == ["keep"]
    assert static.processes[1].code == -signal.SIGKILL
    assert static.end() == 0


def test_hup_then_term_whoever_is_last_leaves(static: World) -> None:
    static.processes[1].hello(STATIC)
    static.turn()
    assert seats(static, 0) == ["keep"]
    static.processes[0].leave()  # it kept its seat: the order to leave came too late
    static.send(signal.SIGTERM)
    assert seats(static, 1) == ["leave"]
    assert static.ends_by_itself() == 0


def test_hup_then_term_before_the_old_worker_has_read_the_reload_s_order(static: World) -> None:
    static.processes[1].hello(STATIC)
    static.turn()
    static.send(signal.SIGTERM)
    assert (seats(static, 0), seats(static, 1)) == (["keep", "leave"], [])
    code = static.processes[0].drained(code=4, seat="keep")  # by the first order
    static.processes[0].end(code)
    static.turn()
    assert seats(static, 1) == ["leave"]
    assert static.ends_by_itself() == 0


@pytest.fixture
def three(make: Callable[..., World]) -> World:
    """Three static members that are to be restarted: one has gone, and kept its seat."""
    world = make()
    world.run_up({**STATIC, "workers": 3})
    world.send(signal.SIGUSR2)
    assert seats(world, 0) == ["keep"]
    world.processes[0].leave()
    world.turn()
    return world


def test_a_stop_after_a_worker_has_gone_and_kept_its_seat(three: World) -> None:
    three.processes[1].drained()  # the order to leave came too late for it
    three.send(signal.SIGTERM)
    three.processes[1].end(4)
    three.turn()
    back = [process for process in three.alive() if process.pid >= 103]
    assert [process.index for process in back] == [0, 1]
    assert [order["seat"] for process in back for order in process.told("drain")] == ["leave"] * 2
    assert not any(process.told("start") for process in back)
    assert three.ends_by_itself() == 0
    assert three.ended_counts().total() == 3


def test_a_stop_when_all_have_gone_and_kept_their_seats(three: World) -> None:
    for process in three.alive():
        process.leave()
    three.sup.turn()
    assert three.sup.over()
    three.sup.view.ask(Request(Kind.STOP, "http"))
    assert not three.sup.over()
    assert three.ends_by_itself() == 0
    assert len(three.processes) == 6


@pytest.mark.parametrize(
    ("number", "code", "processes"), [(signal.SIGTERM, 4, 1), (signal.SIGINT, 0, 2)]
)
def test_a_held_restart_that_is_released_and_one_that_becomes_a_stop(
    make: Callable[..., World], number: int, code: int, processes: int
) -> None:
    world = make()
    world.run_up({**STATIC, "stable_identity": True})
    world.sup.view.ask(Request(Kind.RESTART, "prestop", hold=True))
    world.turn()
    world.processes[0].leave()
    world.pass_time(3)
    assert not world.sup.over()
    world.send(number)
    assert world.ends_by_itself() == code
    assert len(world.processes) == processes
    assert [seats(world, n) for n in range(processes)] == [["keep"], ["leave"]][:processes]


def test_what_is_asked_when_it_is_over_comes_too_late(three: World) -> None:
    for process in three.alive():
        process.leave()
    assert three.end() == 4
    assert three.sup.view.ask(Request(Kind.STOP, "http")) is Outcome.REFUSED
    assert three.sup.lifecycle.exit_code() == 4


@pytest.mark.parametrize(
    ("does", "why"),
    [
        (lambda world: world.alive()[-1].say("fatal", code=78, reason="no such app"), "no such"),
        (lambda world: world.alive()[-1].drained(clean=False, code=2, reason="away"), "away"),
        (lambda world: world.alive()[-1].drained(seat="keep"), "kept it"),
        (lambda world: world.alive()[-1].end(-signal.SIGKILL), "SIGKILL"),
        (lambda world: world.pass_time(25), "deadline"),
        (lambda world: [world.send(signal.SIGINT) for _ in range(2)], "forced"),
    ],
)
def test_a_seat_that_is_not_given_up_is_no_clean_stop(
    three: World, does: Callable[[World], object], why: str
) -> None:
    for process in three.alive():
        process.leave()
    three.host.full = True
    three.sup.turn()
    three.host.full = False
    three.sup.view.ask(Request(Kind.STOP, "http"))
    three.sup.turn()
    for process in three.alive()[:-1]:
        process.leave()
    words = does(three)
    for process in three.alive():
        process.end(words if isinstance(words, int) else 78)
    three.turn()
    assert three.end() == 2
    assert "seat" in three.sup.lifecycle.reason
    assert why in three.sup.lifecycle.reason


def test_a_seat_is_not_given_up_where_there_is_no_room_for_a_process(three: World) -> None:
    three.host.full = True
    three.send(signal.SIGTERM)
    assert three.ends_by_itself() == 2
    told = "worker 0 has not come up to give up its seat in the group: no process"
    assert told in three.sup.lifecycle.reason


def test_a_service_that_fails_gives_no_seat_up_for_those_who_are_gone(three: World) -> None:
    """Most likely it is started again, and takes them."""
    three.send(signal.SIGTERM)
    for process in three.alive():
        process.end(1)
    three.turn()
    assert three.end() == 1


def test_a_held_restart_gives_seats_up_that_a_reload_kept(static: World) -> None:
    static.processes[1].hello(STATIC)
    static.turn()
    static.sup.view.ask(Request(Kind.RESTART, "prestop", hold=True))
    static.turn()
    assert seats(static, 0) == ["keep", "leave"]
    static.processes[0].end(static.processes[0].drained(seat="keep"))
    static.turn()
    assert seats(static, 1) == ["leave"]
    static.send(signal.SIGTERM)
    assert static.ends_by_itself() == 4


def test_a_stop_while_a_slot_is_empty_because_memory_is_short(make: Callable[..., World]) -> None:
    world = make()
    world.run_up(STATIC)
    assert world.sup.replace(0, "memory", room=False) is not None
    world.turn()
    world.processes[0].leave()
    os.write(world.pipe.writer, bytes([signal.SIGTERM]))
    world.turn()
    assert [seats(world, number) for number in range(2)] == [["keep"], ["leave"]]
    assert not world.processes[1].told("start")
    assert world.ends_by_itself() == 0


def test_held(world: World) -> None:
    world.sup.view.ask(Request(Kind.RESTART, "prestop", hold=True))
    world.turn()
    world.processes[0].leave()
    world.pass_time(5)
    assert not world.sup.over()
    world.send(signal.SIGTERM)
    assert world.end() == 4


def test_two_interrupts_force(world: World) -> None:
    world.send(signal.SIGINT)
    world.send(signal.SIGINT)
    assert world.end() == 2
