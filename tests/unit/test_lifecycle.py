from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest

from penstock.lifecycle import (
    ORDER,
    Kind,
    Lifecycle,
    Outcome,
    Request,
    State,
    can_go,
)
from penstock.supervisor.signals import REQUESTS

TERM = "TERM"
INT = "INT"
SIGNALS = {int(number): number.name.removeprefix("SIG") for number in REQUESTS}  # type: ignore[attr-defined] # signal.Signals

ASKED: dict[str, Request] = {
    **{SIGNALS[number]: request for number, request in REQUESTS.items()},
    "restart": Request(Kind.RESTART, "http"),
    "hold": Request(Kind.RESTART, "prestop", hold=True),
    "stop": Request(Kind.STOP, "http"),
}
STOPS = {"TERM", "INT", "QUIT", "stop"}
RESTARTS = {"USR2", "restart", "hold"}
OTHERS = {"TSTP", "CONT", "HUP"}
NAMES = sorted(STOPS | RESTARTS | OTHERS)
FAILURE = (137, "worker 0 died")


def test_the_table_covers_every_request_there_is() -> None:
    assert set(NAMES) | {"TTIN"} == set(ASKED)


@dataclass
class Expected:
    """The contract's sentences, told from the whole history instead of step by step."""

    sequence: tuple[str, ...]
    sick_at: int | None  # which request finds liveness failing, if any
    failed_before: int | None  # before which request a failure came, if any

    @property
    def ends(self) -> list[str]:
        return [name for name in self.sequence if name in STOPS | RESTARTS]

    def code(self) -> int:
        first_end = next((i for i, n in enumerate(self.sequence) if n in STOPS | RESTARTS), None)
        sick = self.sick_at is not None and self.sick_at == first_end
        if self.failed_before is not None and (
            not sick or first_end is None or self.failed_before <= first_end
        ):
            return FAILURE[0]
        if sick:
            return 3
        if not self.ends:
            return 1  # ended without being asked to
        stops = [name for name in self.ends if name in STOPS]
        if self.ends[0] == "hold":  # TERM is what a held restart waits for
            stops = [name for name in stops if name != TERM]
        return 0 if stops else 4

    def forced(self) -> bool:
        return self.sequence.count(INT) >= 2

    def waits(self) -> bool:
        return bool(self.ends) and self.ends[0] == "hold" and not STOPS.intersection(self.ends)

    def quiet(self) -> bool:
        """The last wish before the end began; what comes later is refused."""
        wish = False
        for name in self.sequence:
            if name in STOPS | RESTARTS:
                break
            wish = {"TSTP": True, "CONT": False}.get(name, wish)
        return wish


def cases() -> list[Expected]:
    found = []
    for length in range(1, 5):
        for sequence in itertools.product(NAMES, repeat=length):
            places: list[int | None] = [None]
            if length <= 3:  # a failure anywhere, and sickness anywhere
                places = [None, *range(length)]
            for sick_at, failed in itertools.product(places, [*places, length]):
                found.append(Expected(sequence, sick_at, failed))
    return found


def test_every_sequence_of_up_to_four_requests_ends_with_the_contract_s_code() -> None:
    number = 0
    for expected in cases():
        life = Lifecycle()
        life.started()
        seen = [life.state]
        for step, name in enumerate(expected.sequence):
            if step == expected.failed_before:
                life.fail(*FAILURE)
            life.request(ASKED[name], alive=step != expected.sick_at)
            if life.state is not seen[-1]:
                assert can_go(seen[-1], life.state), expected
                seen.append(life.state)
        if expected.failed_before == len(expected.sequence):
            life.fail(*FAILURE)
            life.fail(99, "a consequence")
        assert life.exit_code() == expected.code(), expected
        assert life.forced == expected.forced(), expected
        assert life.waits_for_release == expected.waits(), expected
        ending = bool(expected.ends)
        assert life.ending == ending, expected
        if not ending:
            assert (life.state is State.QUIET) == expected.quiet(), expected
        assert life.want_quiet == expected.quiet(), expected
        number += 1
    assert number > 4 * 10**4


def test_states_go_forward_only_but_for_quiet() -> None:
    for old, new in itertools.product(ORDER, ORDER):
        forward = ORDER.index(new) > ORDER.index(old)
        back = (old, new) == (State.QUIET, State.RUNNING)
        assert can_go(old, new) == (forward or back)
        life = Lifecycle()
        life.state = old
        assert life.go(new) == (forward or back)
        assert life.state is (new if forward or back else old)


@pytest.mark.parametrize(
    ("sequence", "outcomes"),
    [
        (["USR2"], [Outcome.ACCEPTED]),
        (["USR2", "restart"], [Outcome.ACCEPTED, Outcome.REPEATED]),
        (["USR2", "TERM"], [Outcome.ACCEPTED, Outcome.UPGRADED]),
        (["TERM", "restart"], [Outcome.ACCEPTED, Outcome.REFUSED]),
        (["TERM", "TERM"], [Outcome.ACCEPTED, Outcome.REPEATED]),
        (["hold", "TERM", "TERM"], [Outcome.ACCEPTED, Outcome.RELEASED, Outcome.REPEATED]),
        (["hold", "TERM", "stop"], [Outcome.ACCEPTED, Outcome.RELEASED, Outcome.UPGRADED]),
        (["hold", "INT", "INT"], [Outcome.ACCEPTED, Outcome.UPGRADED, Outcome.FORCED]),
        (["TERM", "INT", "INT"], [Outcome.ACCEPTED, Outcome.REPEATED, Outcome.FORCED]),
        (["TERM", "TSTP", "CONT"], [Outcome.ACCEPTED, Outcome.REFUSED, Outcome.REFUSED]),
        (["TSTP", "TSTP", "CONT"], [Outcome.ACCEPTED, Outcome.REPEATED, Outcome.ACCEPTED]),
        (["HUP", "HUP"], [Outcome.ACCEPTED, Outcome.REPEATED]),
        (["TERM", "HUP"], [Outcome.ACCEPTED, Outcome.REFUSED]),
        (["TERM", "TTIN"], [Outcome.ACCEPTED, Outcome.ACCEPTED]),
    ],
)
def test_what_becomes_of_a_request(sequence: list[str], outcomes: list[Outcome]) -> None:
    life = Lifecycle()
    life.started()
    assert [life.request(ASKED[name], alive=True) for name in sequence] == outcomes


def test_quiet_asked_while_starting_is_kept_for_later() -> None:
    life = Lifecycle()
    assert life.request(ASKED["TSTP"], alive=True) is Outcome.ACCEPTED
    assert life.state is State.STARTING
    assert life.started() is State.QUIET
    assert life.started() is State.QUIET


def test_a_reload_asked_for_while_starting_is_kept_for_later() -> None:
    life = Lifecycle()
    assert life.request(ASKED["HUP"], alive=True) is Outcome.ACCEPTED
    assert life.request(ASKED["HUP"], alive=True) is Outcome.REPEATED
    life.started()
    assert life.reload_wanted


def test_a_reload_asked_for_while_one_runs_comes_after_it() -> None:
    life = Lifecycle()
    life.started()
    life.request(ASKED["HUP"], alive=True)
    life.reload_wanted = False  # begun
    assert life.request(ASKED["HUP"], alive=True) is Outcome.ACCEPTED
    assert life.request(ASKED["HUP"], alive=True) is Outcome.REPEATED


def test_a_stop_while_starting_drains_at_once() -> None:
    life = Lifecycle()
    assert life.request(ASKED["TERM"], alive=True) is Outcome.ACCEPTED
    assert life.started() is State.DRAINING


def test_a_request_after_a_failure_began_the_end_starts_nothing() -> None:
    life = Lifecycle()
    life.started()
    life.fail(*FAILURE)
    life.go(State.DRAINING)
    assert life.request(ASKED["TERM"], alive=True) is Outcome.REPEATED
    assert life.exit_code() == 137
    assert life.requested_by == "SIGTERM"


def test_the_first_failure_is_the_one_that_is_told() -> None:
    life = Lifecycle()
    assert life.fail(*FAILURE)
    assert not life.fail(2, "the drain deadline passed")
    assert (life.exit_code(), life.reason) == FAILURE


@pytest.mark.parametrize(
    ("name", "alive", "reason"),
    [
        ("USR2", True, "restart by SIGUSR2"),
        ("stop", True, "stop by http"),
        ("TERM", False, "asked to stop by SIGTERM while liveness was failing"),
    ],
)
def test_the_reason_says_who_asked(name: str, alive: bool, reason: str) -> None:
    life = Lifecycle()
    assert life.reason == "ended without being asked to"
    assert life.requested_by == ""
    life.request(ASKED[name], alive=alive)
    assert life.reason == reason


def test_the_callers_own_words_come_first() -> None:
    life = Lifecycle()
    life.request(Request(Kind.RESTART, "http", reason="new certificate"), alive=True)
    assert life.reason == "new certificate"
