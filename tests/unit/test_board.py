from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock
from penstock import board_file
from penstock.board import Board, Working
from penstock.record import Record

_PATH = str(Path(penstock.__file__).parent.parent)

CHILD = """
import sys, time
from penstock.board import Board
board = Board(int(sys.argv[1]), 2)
board.beat()
board.last_done(1234.5)
board.first_taken(1200.25)
slot = board.slot(1)
slot.enter("orders")
slot.hold(time.monotonic(), 42, 3, b"customer-7")
print("written", flush=True)
sys.stdin.readline()
slot.clear()
print("cleared", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.create(4)
    yield made
    made.close()


def test_a_child_writes_and_the_parent_reads() -> None:
    board = Board.create(1024)  # made before anybody knows how many threads there will be
    before = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(board.fd)],
        env={**os.environ, "PYTHONPATH": _PATH},
        pass_fds=[board.fd],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == "written\n"
        [working] = board.working()
        assert working == Working(1, "orders", 3, 42, 1, b"customer-7", working.since, 42)
        assert before <= working.since <= time.monotonic()  # one clock for both
        polled = board.poll_at()
        assert polled is not None
        assert before <= polled <= time.monotonic()
        assert (board.done_at(), board.taken_at()) == (1234.5, 1200.25)
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "cleared\n"
        assert board.working() == []
        board.slot(0).enter("orders")
        board.slot(0).hold(1.0, 1, 1, None)
        child.kill()
    assert len(board.working()) == 1  # it says what it says, whoever died
    board.close()


def test_nothing_yet(board: Board) -> None:
    assert board.working() == []
    assert (board.poll_at(), board.done_at(), board.taken_at()) == (None, None, None)


def test_the_oldest_comes_first_and_idle_slots_are_left_out(board: Board) -> None:
    for index, since in ((0, 30.0), (1, 10.0), (3, 20.0)):
        slot = board.slot(index)
        slot.enter(f"topic-{index}")
        slot.hold(since, index, 0, None)
    assert [w.slot for w in board.working()] == [1, 3, 0]
    board.slot(1).clear()
    assert [w.slot for w in board.working()] == [3, 0]


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300),
    st.none() | st.binary(max_size=200),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**31 - 1),
    st.floats(0.001, 1e9),
)
def test_what_is_held_reads_back(
    topic: str, key: bytes | None, offset: int, partition: int, since: float
) -> None:
    board = Board.create(2)
    slot = board.slot(0)
    slot.enter(topic)
    slot.hold(since, offset, partition, key)
    [working] = board.working()
    fits = topic.encode()[:255].decode(errors="replace")
    kept = None if key is None or key == b"\0none" else key[:95]
    assert working == Working(0, fits, partition, offset, 1, kept, since, offset)
    board.slot(1).enter(topic)
    assert len(board.working()) == 1  # a long topic does not run over into the next slot
    board.close()


def test_a_topic_cut_in_the_middle_of_a_letter_is_still_text(board: Board) -> None:
    board.slot(0).enter("x" * 254 + "é")
    board.slot(0).hold(1.0, 0, 0, None)
    assert board.working()[0].topic == "x" * 254 + "\ufffd"


def test_for_people() -> None:
    assert str(Working(0, "orders", 3, 42, 1, None, 1.0, 42)) == "orders[3]@42"
    assert str(Working(0, "orders", 3, 42, 5, None, 1.0, 50)) == "orders[3]@42 and 4 more"


def test_reading_while_it_is_written(board: Board) -> None:
    """Whatever is read was written together, or nothing."""
    ended = threading.Event()
    slot = board.slot(2)
    slot.enter("orders")

    def write() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            slot.hold(float(number), number, number % 1000, b"%d" % number)

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    try:
        for _ in range(3000):
            for working in board.working():
                seen.add(working.offset)
                assert working.since == working.offset
                assert working.key == b"%d" % working.offset
                assert working.partition == working.offset % 1000
    finally:
        ended.set()
        writer.join()
    assert len(seen) > 1


def test_a_torn_read_is_read_again(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process stops in the middle of a record; the second look sees it whole."""
    slot = board.slot(0)
    slot.enter("orders")
    slot.hold(5.0, 7, 1, b"new")
    looks = 0
    whole = os.pread

    def torn(fd: int, size: int, at: int) -> bytes:
        nonlocal looks
        looks += 1
        found = whole(fd, size, at)
        if looks == 1:  # since is of this record, the offset of the one before
            return struct.pack("<dq", 5.0, 6) + found[16:]
        return found

    monkeypatch.setattr(os, "pread", torn)
    working = board._read(0)
    assert working is not None
    assert working.offset == 7
    assert looks == 4


def test_a_batch_is_a_range(board: Board) -> None:
    board.slot(0).enter("orders")
    records = [Record("orders", 3, offset, 0, b"k%d" % offset, None, ()) for offset in (4, 7, 9)]
    board.slot(0).hold_batch(2.0, records)
    assert board.working() == [Working(0, "orders", 3, 4, 3, b"k4", 2.0, 9)]
    assert str(board.working()[0]) == "orders[3]@4 and 2 more"


def test_marks(board: Board) -> None:
    assert (board.is_alone, board.is_draining) == (False, False)
    board.alone(True)
    assert (board.is_alone, board.is_draining) == (True, False)
    board.alone(False)
    board.draining()
    assert (board.is_alone, board.is_draining) == (False, True)


def test_a_file_that_is_cut_or_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    """A mapping would end the reader with SIGBUS, and the reader is PID 1."""
    board = board_file.create(tmp_path / "board", 2, "billing")
    board.slot(0).enter("orders")
    board.slot(0).hold(1.0, 2, 3, None)
    assert len(board.working()) == 1
    os.truncate(tmp_path / "board", 0)
    assert (board.working(), board.poll_at(), board.is_alone) == ([], None, False)
    board.close()


FILED = """
import os, sys
from pathlib import Path
from penstock import board_file
from penstock.board import Board
board = Board.create(2)
slot = board.slot(1)  # made before the move, as those of the handler threads are
board_file.move(board, Path(sys.argv[1]))
slot.enter("orders")
slot.hold(5.0, 42, 3, b"customer-7")
print("written", flush=True)
sys.stdin.readline()
os.kill(os.getpid(), 9)
"""


def test_a_board_in_a_file_outlives_everybody(tmp_path: Path) -> None:
    path = tmp_path / "board-0-1"
    board_file.create(path, 2, "billing").close()
    child = subprocess.Popen(
        [sys.executable, "-c", FILED, str(path)],
        env={**os.environ, "PYTHONPATH": _PATH},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == "written\n"
        board, _ = board_file.reopen(path)
        assert board_file.is_in_use(board)
        child.stdin.write("\n")
        child.stdin.flush()
        child.wait()
    assert not board_file.is_in_use(board)
    board.close()
    board, group = board_file.reopen(path)
    assert group == "billing"
    assert board.working() == [Working(1, "orders", 3, 42, 1, b"customer-7", 5.0, 42)]
    assert path.stat().st_mode & 0o777 == 0o600
    board.close()


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "no board"), (b"\0" * 4096, "no board"), (b"\0" * 32 + b"penbrd1\0\2\0\0\0", "cut")],
)
def test_what_is_no_board(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=why):
        board_file.reopen(tmp_path / "file")
    ours = Board.create(2)
    with pytest.raises(ValueError, match=why):
        board_file.move(ours, tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(OSError, match="link"):
        board_file.reopen(tmp_path / "link")
    ours.slot(0).hold(1.0, 2, 3, None)  # it stays where it was
    assert len(ours.working()) == 1
    ours.close()


def test_no_room_is_told_when_the_file_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int, _at: int, _size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        board_file.create(tmp_path / "board", 2, "billing")
    assert list(tmp_path.iterdir()) == []


def test_no_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_name: str) -> int:
        raise PermissionError("seccomp")

    monkeypatch.setattr(os, "memfd_create", forbidden)
    board = Board.create(1)
    board.slot(0).enter("orders")
    board.slot(0).hold(1.0, 2, 3, None)
    assert str(board.working()[0]) == "orders[3]@2"
    board.close()
