from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import pytest

from penstock.supervisor.exit_record import InFlight
from penstock.supervisor.messages import LastWords
from penstock.supervisor.verdict import Blame, End, blame, judge

STUCK = (InFlight("orders", 3, 42, None, 9.0, None),)
#: As ``os.waitstatus_to_exitcode`` gives them: signals are negative.
CODES = [-11, -9, 0, 1, 2, 3, 4, 17, 64, 78, 128, 129, 137, 139, 255]
WORDS = [
    None,
    LastWords(78, clean=True, reason="clean, it says, and yet 78"),
    *(LastWords(code, clean=True, reason="") for code in (0, 4)),
    LastWords(2, clean=False, reason="the drain deadline passed", stuck=STUCK),
    LastWords(1, clean=False, reason="fenced"),
]
FATAL = [None, LastWords(1, clean=False, reason="corrupt batch")]


@dataclass
class Ended:
    draining: bool
    discarded: bool
    killed: bool
    last_words: LastWords | None
    fatal: LastWords | None
    consumed: bool = True
    to_leave: bool = False


CASES = [
    (Ended(draining, discarded, killed, words, fatal, consumed), code)
    for draining, discarded, killed, consumed in itertools.product([False, True], repeat=4)
    for words in WORDS
    for fatal in FATAL
    for code in CODES
]


@pytest.mark.parametrize("code", CODES)
def test_who_came_for_a_seat_alone_says_of_the_work_nothing(code: int) -> None:
    for each, status in CASES:
        if status != code or each.consumed or each.discarded:
            continue
        end = judge(each, code)
        other = judge(replace(each, to_leave=True), code)
        assert other.planned == end.planned
        if other.planned:
            assert not other.counts
        else:
            assert other.code == 2


@pytest.mark.parametrize("code", CODES)
def test_every_combination(code: int) -> None:
    """The rules as sentences: what counts, what was earned, which code, which words."""
    for worker, status in CASES:
        if status != code:
            continue
        end, words = judge(worker, code), worker.last_words
        cost_nothing = worker.discarded and not worker.consumed
        assert end.counts == (not cost_nothing)
        for spare in (False, True):
            blamed = blame(worker, end, spare=spare)
            if end.planned:
                assert blamed is Blame.NOBODY
            elif worker.consumed or not spare:
                assert blamed is Blame.SERVICE
            else:
                assert blamed is Blame.REPLACEMENT
        if cost_nothing:
            assert end.planned
            continue
        asked_and_clean = (
            worker.draining and words is not None and words.clean and worker.fatal is None
        )
        earned = (
            asked_and_clean
            and words is not None
            and words.code in (0, 4)
            and (worker.killed or code == words.code)
        )
        assert end.planned == earned, (worker, code)
        if earned:
            assert words is not None
            assert (end.code, end.reason, end.stuck) == (words.code, "", ())
            continue
        assert end.code not in (0, 4), (worker, code)
        assert end.reason, (worker, code)
        if worker.killed:
            assert (end.code, end.reason) == (2, "the drain deadline passed")
            continue
        explained = worker.fatal is not None or (words is not None and not words.clean)
        if code < 0:
            assert end.code == 128 - code
        else:
            assert end.code == (code if explained and code in (1, 2, 3, 64, 78) else 1)
        assert end.stuck == (words.stuck if words is not None else ())
        if words is not None and not words.clean:
            assert end.reason == words.reason
        elif worker.fatal is not None:
            assert end.reason == worker.fatal.reason
        elif code < 0:
            assert end.reason.startswith(f"died: {128 - code} KILLED")
        else:
            assert end.reason == f"exited with status {code} without being asked to"


@pytest.mark.parametrize("code", [2, 3, 64, 78, 137, 255])
def test_a_handler_cannot_choose_the_service_s_code(code: int) -> None:
    """78 would keep systemd from starting it again, 137 would look like out of memory."""
    for draining in (False, True):
        end = judge(Ended(draining, False, False, None, None), code)
        assert (end.code, end.planned) == (1, False)
        assert end.reason == f"exited with status {code} without being asked to"


@pytest.mark.parametrize("code", [0, 4])
def test_a_handler_cannot_earn_a_planned_code_by_itself(code: int) -> None:
    for draining in (False, True):
        end = judge(Ended(draining, False, False, None, None), code)
        assert (end.code, end.planned) == (1, False)


def test_clean_words_of_another_code_are_not_believed() -> None:
    end = judge(Ended(True, False, False, LastWords(4, clean=True, reason=""), None), 0)
    assert (end.code, end.planned) == (1, False)


def test_out_of_memory_is_hinted_at() -> None:
    end = judge(Ended(False, False, False, None, None), -9)
    assert end == End(
        137,
        planned=False,
        reason="died: 137 KILLED (SIGKILL) (out of memory, or killed by somebody)",
    )
