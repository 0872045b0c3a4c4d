"""What is found out about a worker that died."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from penstock import board_file
from penstock.board import Board
from penstock.cgroup import Reading as MemoryReading
from penstock.deaths import Toll
from penstock.supervisor.child import Child
from penstock.supervisor.exit_record import Memory
from penstock.supervisor.host import Host
from penstock.supervisor.journal import Journal
from penstock.supervisor.messages import LastWords
from penstock.supervisor.post_mortem import PostMortem
from tests.unit.making import make_settings
from tests.unit.supervising import FakeHost, FakeProcess


class Machine(Host):
    """The real one, but for what other processes would do."""

    def __init__(self) -> None:
        super().__init__()
        self.wills: list[dict[str, Any]] = []
        self.takes = True

    def memory(self) -> MemoryReading | None:
        return MemoryReading(limit=400_000_000, working_set=0)

    def last_will(self, told: Mapping[str, Any], seconds: float) -> list[str]:
        self.wills.append(dict(told))
        return [toll["id"] for toll in told["tolls"]] if self.takes else []


class Victim:
    """A worker as a post-mortem sees it."""

    def __init__(self, group: str = "billing") -> None:
        self.index, self.pid = 0, 4711
        self.board = Board.create(2)
        self.hello = SimpleNamespace(concurrency=2)
        self.reading = SimpleNamespace(group=group)
        self.discarded = self.killed = False
        self.last_words: LastWords | None = None

    def holds(self, *offsets: int) -> None:
        for index, offset in enumerate(offsets):
            self.board.slot(index).enter("orders")
            self.board.slot(index).hold(1.0, offset, 3, b"k")

    @property
    def child(self) -> Child:
        return cast(Child, self)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "state", now=1.0) as opened:
        opened.write_start(at=1.0, version="1")
        yield opened


def tolls(found: Mapping[str, Any]) -> list[list[list[int]]]:
    return [toll["deaths"] for toll in found.get("tolls", [])]


def test_a_death_is_explained_and_counted(machine: Machine, journal: Journal) -> None:
    post_mortem = PostMortem(machine, journal)
    victim = Victim()
    told, board = post_mortem.prepare(victim.child)
    assert board is not None
    assert "tolls" not in told
    assert Path(told["board"]).name == "board-0-4711"
    board_file.move(victim.board, Path(told["board"]))
    victim.holds(7, 9)
    victim.board = board  # the supervisor's end
    found = post_mortem.examine(victim.child, peak=412_000_000)
    assert [item.offset for item in found.held] == [7, 9]
    assert found.memory == Memory(412_000_000, 400_000_000)
    assert str(found) == (
        " while handling orders[3]@7 (key k), orders[3]@9 (key k); "
        "it held 412 MB of memory at most, limit 400 MB"
    )
    assert not Path(told["board"]).exists()
    again, other = post_mortem.prepare(Victim().child)
    assert tolls(again) == [[[7, 7, 1, 0], [9, 9, 1, 0]]]
    assert "tolls" not in post_mortem.prepare(Victim("shipping").child)[0]
    assert other is not None


@pytest.mark.parametrize("how", ["discarded", "killed", "spoke"])
def test_whoever_ended_by_our_hand_or_in_order_kills_nobody(
    machine: Machine, journal: Journal, how: str
) -> None:
    """A record that outlasted a drain was stuck; that is another fault."""
    post_mortem = PostMortem(machine, journal)
    victim = Victim()
    victim.holds(7)
    if how == "spoke":
        victim.last_words = LastWords(2, clean=False, reason="the drain deadline passed")
    else:
        setattr(victim, how, True)
    found = post_mortem.examine(victim.child, peak=1)
    assert (found.held, str(found)) == ((), "")
    assert tolls(post_mortem.prepare(victim.child)[0]) == []


@pytest.mark.parametrize("draining", [False, True])
def test_a_lost_run_counts_unless_it_was_draining(
    machine: Machine, tmp_path: Path, draining: bool
) -> None:
    """A platform that kills a container in its drain has lost patience; no record did it."""
    state = tmp_path / "state"
    with Journal.open(state, now=1.0) as journal:
        journal.write_start(at=1.0, version="1")
    board = board_file.create(state / "board-0-1", 2, "billing")
    board.slot(0).enter("orders")
    board.slot(0).hold(1.0, 7, 3, None)
    board.alone(True)
    if draining:
        board.draining()
    board.close()
    with Journal.open(state, now=2.0) as journal:
        last = journal.history.last
        assert last is not None
        assert [item.offset for item in last.held_at_death] == [7]
        found = PostMortem(machine, journal).prepare(Victim().child)[0]
    assert tolls(found) == ([] if draining else [[[7, 7, 1, 1]]])


def test_the_group_is_told_for_the_dead_member(machine: Machine, journal: Journal) -> None:
    post_mortem = PostMortem(machine, journal)
    for member in (None, "member-1"):
        victim = Victim()
        victim.holds(7)
        if member is not None:
            victim.board.member(member, 5)
        post_mortem.examine(victim.child, peak=1)
    settings = make_settings()
    post_mortem.leave_word(settings, lambda index: f"static-{index}", 20.0)
    [told] = machine.wills  # one never joined: there is nobody to commit for
    assert told["dead"] == ["billing", "static-0", "member-1", 5]
    assert told["seconds"] <= 10.0
    assert len(told["tolls"]) == 1
    left = post_mortem.prepare(Victim().child)[0]
    assert len(left["tolls"]) == 1  # the other one's is still to be told
    assert Toll.from_json(left["tolls"][0]).id != told["tolls"][0]["id"]


def test_what_the_group_did_not_take_stays(machine: Machine, journal: Journal) -> None:
    machine.takes = False
    post_mortem = PostMortem(machine, journal)
    victim = Victim()
    victim.holds(7)
    victim.board.member("member-1", 5)
    post_mortem.examine(victim.child, peak=1)
    post_mortem.leave_word(make_settings(), lambda _: None, 20.0)
    assert len(machine.wills) == 1
    assert len(post_mortem.prepare(Victim().child)[0]["tolls"]) == 1


def test_it_is_not_tried_when_the_budget_is_over(machine: Machine, journal: Journal) -> None:
    post_mortem = PostMortem(machine, journal)
    victim = Victim()
    victim.holds(7)
    victim.board.member("member-1", 5)
    post_mortem.examine(victim.child, peak=1)
    post_mortem.leave_word(make_settings(), lambda _: None, 0.5)
    assert machine.wills == []


def test_a_will_that_cannot_be_carried_out_is_no_error() -> None:
    assert Host().last_will({"settings": {}}, 20.0) == []  # it ends with a traceback
    assert Host().last_will({"settings": {}}, 0.01) == []  # it takes too long


def test_a_worker_that_cannot_move_is_read_where_it_stays() -> None:
    process = FakeProcess(FakeHost(), 0)
    child = Child(process)
    first, file = child.board, Board.create(1)
    child.take_board(file)
    assert child.board is file
    child.take({"t": "board", "kept": False})
    assert child.board is first
    process.end(-9)
    child.reaped(-9)
    child.release()
    assert process.fake_board.closed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file.fd)
