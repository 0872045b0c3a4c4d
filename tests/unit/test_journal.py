from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import penstock
from penstock import board_file
from penstock.board import Board
from penstock.errors import ConfigError
from penstock.supervisor.boards import Boards
from penstock.supervisor.exit_history import (
    KEPT_EXITS,
    LINE_LIMIT,
    ExitHistory,
    Ledger,
    exit_line,
    gap_line,
    start_line,
)
from penstock.supervisor.exit_record import ExitRecord, InFlight
from penstock.supervisor.journal import COMPACT_AT, FILE, LOCK, Journal
from penstock.telemetry.catalog import DRAIN_DURATION, RESTART_GAP

RESTART = ("4", "RESTART", True)
CRASHED = ("1", "CRASHED", False)
LOST = ("unknown", "LOST", False)

_PATH = str(Path(penstock.__file__).parent.parent)

#: A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def exit_record(code: int, *, at: float = 2.0, reason: str = "because") -> ExitRecord:
    return ExitRecord.of(
        code,
        reason=reason,
        at=at,
        requested_by="SIGUSR2",
        drain_seconds=float(code),
        uptime_seconds=1.0,
        last_done_at=at - 0.5,
    )


def one_run(directory: Path, code: int | None, *, gap: float | None = None) -> None:
    """A run of the service; code None is killed as a whole."""
    with Journal.open(directory, now=1.0) as journal:
        journal.write_start(at=1.0, version="1.2.3")
        if gap is not None:
            journal.record_gap(gap)
        if code is not None:
            journal.write_exit(exit_record(code))


def look(directory: Path, now: float = 9.0) -> ExitHistory:
    with Journal.open(directory, now=now) as journal:
        return journal.history


def lines(directory: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (directory / FILE).read_bytes().splitlines()]


# -- the plain way ---------------------------------------------------------------------


def test_exits_are_counted_across_runs(tmp_path: Path) -> None:
    one_run(tmp_path, 4)
    one_run(tmp_path, 1, gap=6.5)
    one_run(tmp_path, 4)
    history = look(tmp_path)
    assert history.counts == {RESTART: 2, CRASHED: 1}
    assert history.unplanned == 1
    assert (history.drain.count, history.drain.sum) == (3, 9.0)
    assert (history.gap.count, history.gap.sum) == (1, 6.5)
    assert [record.code for record in history.recent] == [4, 1, 4]
    assert history.last is not None
    assert history.last.to_json() == exit_record(4).to_json()


def test_the_first_run_has_no_history(tmp_path: Path) -> None:
    history = look(tmp_path / "new")
    assert (history.counts, history.last, history.restarted_from) == ({}, None, None)


def test_a_missing_directory_is_made_for_us_alone(tmp_path: Path) -> None:
    one_run(tmp_path / "a" / "b", 0)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "b" / FILE).stat().st_mode & 0o777 == 0o600


def test_the_file_is_lines_of_json_for_people_too(tmp_path: Path) -> None:
    one_run(tmp_path, 4, gap=1.25)
    start, gap, end = lines(tmp_path)
    assert start["t"] == "start"
    assert (start["at"], start["version"]) == (1.0, "1.2.3")
    assert gap == {"t": "gap", "seconds": 1.25}
    assert (end["t"], end["run"]) == ("exit", start["run"])
    assert (end["code"], end["name"], end["planned"]) == (4, "RESTART", True)


def test_what_a_run_writes_shows_in_its_own_history_at_once(tmp_path: Path) -> None:
    with Journal.open(tmp_path, now=1.0) as journal:
        journal.write_start(at=1.0, version="1")
        before = journal.history
        journal.record_gap(3.0)
        journal.write_exit(exit_record(4))
        assert journal.history.counts == {RESTART: 1}
        assert journal.history.gap.count == 1
        assert (before.counts, before.gap.count) == ({}, 0)  # a scrape's view does not move


def test_only_the_first_exit_of_a_run_counts(tmp_path: Path) -> None:
    with Journal.open(tmp_path, now=1.0) as journal:
        journal.write_start(at=1.0, version="1")
        journal.write_exit(exit_record(4))
        journal.write_exit(exit_record(1))
    assert look(tmp_path).counts == {RESTART: 1}


@pytest.mark.parametrize(
    ("code", "expected"), [(4, 1.5), (0, None), (1, None), (2, None), (137, None), (None, None)]
)
def test_the_restart_gap_begins_with_the_last_record_before_a_planned_restart(
    tmp_path: Path, code: int | None, expected: float | None
) -> None:
    one_run(tmp_path, code)
    assert look(tmp_path).restarted_from == expected


# -- lost runs -------------------------------------------------------------------------


def test_a_run_without_an_exit_line_is_lost_once_for_ever(tmp_path: Path) -> None:
    one_run(tmp_path, 4)
    one_run(tmp_path, None)
    for _ in range(3):
        history = look(tmp_path, now=9.0)
        assert history.counts == {RESTART: 1, LOST: 1}
        assert history.unplanned == 1
    assert history.last is not None
    assert history.last.key == LOST
    assert (history.last.at, history.last.uptime_seconds) == (9.0, 8.0)
    assert "no exit record" in history.last.reason


def test_a_process_that_is_killed_leaves_a_lost_run(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from penstock.supervisor.journal import Journal
journal = Journal.open(Path({str(tmp_path)!r}), now=1.0)
journal.write_start(at=1.0, version="1")
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": _PATH}, check=False
    )
    assert done.returncode == -9
    assert look(tmp_path).counts == {LOST: 1}  # and the kernel released the lock


# -- damage ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Three runs: restarted, lost, crashed."""
    directory = tmp_path_factory.mktemp("small")
    one_run(directory, 4, gap=2.0)
    one_run(directory, None)
    one_run(directory, 1)
    return (directory / FILE).read_bytes()


def test_torn_at_any_byte_it_never_counts_more_than_happened(small: bytes, tmp_path: Path) -> None:
    for cut in range(len(small) + 1):
        directory = tmp_path / str(cut)
        directory.mkdir()
        (directory / FILE).write_bytes(small[:cut])
        first = look(directory)
        whole = [line for line in small[:cut].split(b"\n") if line.endswith(b"}")]
        begun = sum(b'"t":"start"' in line for line in whole)
        assert sum(first.counts.values()) == begun, cut  # each run ended exactly once
        assert first.counts.get(RESTART, 0) <= 1, cut
        assert first.counts.get(CRASHED, 0) <= 1, cut
        assert first.gap.count <= 1, cut
        # What was found is written down in a readable way: nothing changes from now on.
        assert look(directory) == first, cut
        one_run(directory, 0)
        after = look(directory)
        assert after.counts == {**first.counts, ("0", "STOPPED", True): 1}, cut


def test_a_hole_anywhere_costs_no_more_than_the_line_it_is_in(small: bytes, tmp_path: Path) -> None:
    truth = sum(b'"t":"start"' in line for line in small.splitlines())
    for position in range(0, len(small), 3):
        directory = tmp_path / str(position)
        directory.mkdir()
        holed = small[:position] + b"\0\xff\n"[position % 3 :][:1] + small[position + 1 :]
        (directory / FILE).write_bytes(holed)
        history = look(directory)
        assert truth - 1 <= sum(history.counts.values()) <= truth, position


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 5000,
        bytes(range(256)).replace(b"\n", b""),
        b"[" * 60_000,
        b"[]",
        b"null",
        b'"t"',
        b"{}",
        b'{"t":"start"}',
        b'{"t":"start","run":"x","at":"soon"}',
        b'{"t":"exit","run":"x"}',
        b'{"t":"exit","run":"x","code":4}',
        b'{"t":"gap","seconds":"long"}',
        b'{"t":"gap","seconds":' + b"9" * 5000 + b"}",
        b'{"t":"totals","exits":[["4",-1]],"drain":{},"gap":{}}',
        b'{"t":"something new"}',
        b'{"t":["start"]}',
        b'{"t":"start","run":"x","at":1,"version":"' + b"v" * 70_000 + b'"}',
    ],
)
def test_garbage_is_skipped_counted_and_told_once(
    tmp_path: Path, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    one_run(tmp_path, 4)
    with (tmp_path / FILE).open("ab") as file:
        file.write(garbage + b"\n" + garbage + b"\n")
    one_run(tmp_path, 1)
    caplog.clear()
    assert look(tmp_path).counts == {RESTART: 1, CRASHED: 1}
    (message,) = caplog.messages
    assert f"PENSTOCK_STATE_DIR={tmp_path}" in message
    assert "skipped 2 damaged lines" in message


@patient
@given(st.lists(st.binary(max_size=200), max_size=5))
def test_no_bytes_stop_the_service(contents: list[bytes]) -> None:
    ledger = Ledger()
    for line in contents:
        ledger.feed(line)
    assert sum(ledger.history().counts.values()) == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=3,
)


@patient
@given(
    st.dictionaries(
        st.sampled_from(["run", "at", "version", "code", "reason", "requested_by", "drain_seconds"])
        | st.sampled_from(["in_flight_at_deadline", "uptime_seconds", "last_done_at", "seconds"])
        | st.sampled_from(["exits", "drain", "gap"]),
        json_values,
    ),
    st.sampled_from(["start", "exit", "gap", "totals"]),
)
def test_no_json_stops_the_service(fields: dict[str, object], kind: str) -> None:
    ledger = Ledger()
    ledger.feed(json.dumps({"t": kind, **fields}).encode())
    ledger.lost(1.0)
    ledger.history()


def test_a_file_that_somebody_filled_does_not_hold_up_the_start(tmp_path: Path) -> None:
    one_run(tmp_path, 4)
    with (tmp_path / FILE).open("r+b") as file:
        file.truncate(1 << 40)  # sparse
    one_run(tmp_path, 1)
    assert look(tmp_path).counts == {RESTART: 1, CRASHED: 1}
    assert (tmp_path / FILE).stat().st_size < COMPACT_AT


def test_a_long_exit_record_is_cut_and_still_counted(tmp_path: Path) -> None:
    held = tuple(InFlight("t", 0, n, "k", 1.0, "s" * 9000) for n in range(99))
    with Journal.open(tmp_path, now=1.0) as journal:
        journal.write_start(at=1.0, version="v" * 9000)
        journal.write_exit(ExitRecord.of(2, reason="r", at=2.0, in_flight_at_deadline=held))
    assert max(map(len, (tmp_path / FILE).read_bytes().splitlines())) <= LINE_LIMIT
    history = look(tmp_path)
    assert history.counts == {("2", "FORCED", False): 1}
    assert history.last is not None
    assert history.last.in_flight_at_deadline[0].offset == 0


# -- disks that do not want ------------------------------------------------------------


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The kernel refuses, or cuts short, a write beyond ``size``, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", range(0, 400, 7))
def test_a_disk_that_fills_up_in_the_middle_of_a_line(
    tmp_path: Path, room: int, caplog: pytest.LogCaptureFixture
) -> None:
    one_run(tmp_path, 4)
    with Journal.open(tmp_path, now=1.0) as journal:
        size = (tmp_path / FILE).stat().st_size
        before = (tmp_path / FILE).read_bytes()
        with files_no_larger_than(size + room):
            journal.write_start(at=1.0, version="1")
            journal.record_gap(2.0)
            journal.write_exit(exit_record(1, reason="r" * 200))
        assert journal.degraded is not None
        assert journal.degraded.startswith(f"PENSTOCK_STATE_DIR={tmp_path}: ")
        assert caplog.messages == [journal.degraded]  # told once, not once a write
        assert journal.history.counts == {RESTART: 1, CRASHED: 1}
        assert journal.history.gap.count == 1
    content = (tmp_path / FILE).read_bytes()
    assert content.startswith(before)
    history = look(tmp_path)
    # What had room is there; without its exit line the run is lost, but never counted twice.
    begun = content[len(before) :].count(b'"t":"start"')
    assert sum(history.counts.values()) == 1 + begun
    assert history.counts[RESTART] == 1


def test_what_had_no_room_is_written_when_there_is_room_again(tmp_path: Path) -> None:
    with Journal.open(tmp_path, now=1.0) as journal:
        with files_no_larger_than(40):
            journal.write_start(at=1.0, version="1")
            journal.record_gap(2.0)
        assert journal.degraded is not None
        journal.write_exit(exit_record(4))
        assert journal.degraded is None
    assert [line["t"] for line in lines(tmp_path)] == ["start", "gap", "exit"]
    assert look(tmp_path).counts == {RESTART: 1}


def test_a_line_that_a_crash_tore_is_ended_before_the_next_one(tmp_path: Path) -> None:
    one_run(tmp_path, 4)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"t":"sta')
    one_run(tmp_path, 1)
    assert look(tmp_path).counts == {RESTART: 1, CRASHED: 1}


def test_a_torn_line_stays_torn_when_the_next_one_has_no_room(tmp_path: Path) -> None:
    one_run(tmp_path, 4)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"t":"sta')
    with Journal.open(tmp_path, now=1.0) as journal:
        with files_no_larger_than((tmp_path / FILE).stat().st_size + 20):
            journal.write_start(at=1.0, version="1")
        journal.write_exit(exit_record(1))
        assert journal.degraded is None
    assert (tmp_path / FILE).read_bytes().count(b'{"t":"sta\n') == 1
    assert look(tmp_path).counts == {RESTART: 1, CRASHED: 1}


def degraded(directory: Path, caplog: pytest.LogCaptureFixture) -> Journal:
    """A journal on a directory that cannot be written; does all that a run does."""
    caplog.clear()
    journal = Journal.open(directory, now=1.0)
    journal.write_start(at=1.0, version="1")
    journal.record_gap(1.0)
    journal.write_exit(exit_record(4))
    journal.close()
    assert journal.degraded is not None
    assert journal.degraded.startswith(f"PENSTOCK_STATE_DIR={directory}: ")
    assert caplog.messages == [journal.degraded]
    return journal


def test_not_a_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("mine")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        assert degraded(directory, caplog).history.counts == {RESTART: 1}
    assert (tmp_path / "file").read_text() == "mine"


def test_a_journal_that_is_not_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a" / FILE).mkdir(parents=True)
    (tmp_path / "b").mkdir()
    os.mkfifo(tmp_path / "b" / FILE)  # opening one waits for the other end, unless told not to
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / FILE).symlink_to(tmp_path / "victim")
    for name in "abc":
        assert degraded(tmp_path / name, caplog).history.counts == {RESTART: 1}
    assert not (tmp_path / "victim").exists()


@contextlib.contextmanager
def tmpfs(path: Path, options: str) -> Iterator[None]:
    path.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(path)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount(8) here")
    if done.returncode:
        pytest.skip("mounting needs more rights; RLIMIT_FSIZE stands in for a full disk above")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_disk_mounted_read_only_still_tells_its_history(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = tmp_path / "disk"
    with tmpfs(disk, "size=1m"):
        one_run(disk, 1)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        journal = degraded(disk, caplog)
        assert "Read-only file system" in (journal.degraded or "")
        assert journal.history.counts == {CRASHED: 1, RESTART: 1}


def test_a_disk_that_is_really_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = tmp_path / "disk"
    with tmpfs(disk, "size=64k"):
        one_run(disk, 1)
        with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(b"x" * 4096)
        runs = 0
        with Journal.open(disk, now=1.0) as journal:
            while journal.degraded is None:  # until the file's last block is full as well
                journal.write_exit(exit_record(4, reason="r" * 200))
                runs += 1
            assert "No space left" in journal.degraded
            assert journal.history.counts == {CRASHED: 1, RESTART: 1}
        assert look(disk).counts[CRASHED] == 1
        for line in (disk / FILE).read_bytes().splitlines():
            json.loads(line)
        (disk / "ballast").unlink()
        one_run(disk, 0)
        assert look(disk).counts[("0", "STOPPED", True)] == 1


# -- one owner -------------------------------------------------------------------------


def test_a_second_service_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from penstock.supervisor.journal import Journal
journal = Journal.open(Path({str(tmp_path)!r}), now=1.0)
print("open", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": _PATH},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(ConfigError) as refused:
            Journal.open(tmp_path, now=1.0)
        assert f"PENSTOCK_STATE_DIR={tmp_path}" in str(refused.value)
        assert re.search(rf"\bpid {other.pid}\b", str(refused.value))
        other.kill()
    assert look(tmp_path).counts == {}


def test_the_lock_is_free_after_close_and_not_inherited(tmp_path: Path) -> None:
    with Journal.open(tmp_path, now=1.0):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with Journal.open(tmp_path, now=1.0):
            assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"
    finally:
        child.kill()
        child.wait()


# -- bounded ---------------------------------------------------------------------------


def test_compaction_keeps_totals_and_the_last_exits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    codes = [4, 4, 1, None, 0, 137]
    reason = "r" * 3000
    largest = 0
    runs = 240
    for number in range(runs):
        code = codes[number % len(codes)]
        with Journal.open(tmp_path, now=1.0) as journal:
            journal.write_start(at=1.0, version="1")
            if number % 2:
                journal.record_gap(1.0)
            if code is not None:
                journal.write_exit(exit_record(code, at=float(number), reason=reason))
        largest = max(largest, (tmp_path / FILE).stat().st_size)
    assert lines(tmp_path)[0]["t"] == "totals"
    assert largest <= COMPACT_AT + 2 * LINE_LIMIT
    each = runs // len(codes)
    history = look(tmp_path)
    assert history.counts == {
        RESTART: 2 * each,
        CRASHED: each,
        LOST: each,
        ("0", "STOPPED", True): each,
        ("137", "KILLED", False): each,
    }
    assert history.drain.count == 5 * each  # all but the lost ones
    assert history.drain.sum == each * (4 + 4 + 1 + 0 + 137)
    assert history.gap.count == runs // 2
    assert len(history.recent) == KEPT_EXITS
    assert history.last is not None
    assert (history.last.code, history.last.at) == (137, runs - 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, LOCK]
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_compaction_in_the_middle_of_a_run_keeps_the_run_open(tmp_path: Path) -> None:
    with Journal.open(tmp_path, now=1.0) as journal:
        journal.write_start(at=1.0, version="1")
        while b'"t":"totals"' not in (tmp_path / FILE).read_bytes()[:20]:
            for _ in range(500):
                journal.record_gap(1.0)
        gaps = journal.history.gap.count
    history = look(tmp_path)
    assert history.counts == {LOST: 1}
    assert history.gap.count == gaps


def test_compaction_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    for _ in range(60):
        one_run(tmp_path, 4)
    before = (tmp_path / FILE).read_bytes()
    with (tmp_path / FILE).open("ab") as file:
        file.write(b"x" * COMPACT_AT + b"\n")
    with files_no_larger_than(1000), Journal.open(tmp_path, now=1.0) as journal:
        assert journal.degraded is not None
        assert journal.history.counts == {RESTART: 60}
    assert (tmp_path / FILE).read_bytes().startswith(before)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, LOCK]
    assert look(tmp_path).counts == {RESTART: 60}


def test_totals_of_a_version_with_other_buckets_are_taken_over() -> None:
    ledger = Ledger()
    histogram = {"bounds": [3.0], "counts": [5, 1], "sum": 44.0}
    totals = {"t": "totals", "exits": [[4, 6], ["unknown", 2]], "drain": histogram}
    ledger.feed(json.dumps({**totals, "gap": histogram}).encode())
    history = ledger.history()
    assert history.counts == {RESTART: 6, LOST: 2}
    assert (history.drain.count, history.drain.sum) == (6, 44.0)
    assert history.drain.bounds == DRAIN_DURATION.buckets
    assert history.gap.bounds == RESTART_GAP.buckets


@patient
@given(
    st.lists(st.tuples(st.none() | st.sampled_from([0, 1, 2, 4, 137]), st.booleans()), max_size=120)
)
def test_compaction_changes_nothing_that_is_counted(runs: list[tuple[int | None, bool]]) -> None:
    ledger = Ledger()
    for number, (code, gap) in enumerate(runs):
        ledger.feed(start_line(f"{number}", at=number, version="1"))
        if gap:
            ledger.feed(gap_line(1.0))
        if code is not None:
            ledger.feed(exit_line(f"{number}", exit_record(code)))
    compacted = Ledger()
    for line in ledger.compacted():
        compacted.feed(line)
    assert compacted.skipped == 0
    assert compacted.history() == ledger.history()
    assert compacted.lost(1.0) == ledger.lost(1.0)
    assert compacted.compacted() == ledger.compacted()


# -- boards of a run that was lost -----------------------------------------------------


def a_board(directory: Path, name: str, *offsets: int) -> Board:
    board = board_file.create(directory / name, max(1, len(offsets)), "billing")
    for index, offset in enumerate(offsets):
        board.slot(index).enter("orders")
        board.slot(index).hold(5.0 + index, offset, 3, b"k%d" % offset)
    return board


def test_a_lost_run_names_what_its_workers_held(tmp_path: Path) -> None:
    one_run(tmp_path, None)
    a_board(tmp_path, "board-0-11", 7, 9).close()
    a_board(tmp_path, "board-1-12", 4).close()
    with Journal.open(tmp_path, now=9.0) as journal:
        last = journal.history.last
        assert last is not None
        assert [str(item) for item in last.held_at_death] == [
            *("orders[3]@7 (key k7)", "orders[3]@9 (key k9)", "orders[3]@4 (key k4)")
        ]
        assert last.reason.endswith(
            "node failure) while handling orders[3]@7 (key k7), orders[3]@9 (key k9), "
            "orders[3]@4 (key k4)"
        )
        assert [(left.group, len(left.working)) for left in journal.left] == [
            ("billing", 2),
            ("billing", 1),
        ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, LOCK]
    assert look(tmp_path).last == last  # told once, and for ever


def test_a_board_of_a_worker_that_lives_is_left_alone(tmp_path: Path) -> None:
    """Its supervisor was killed; it finishes what it holds, and that is no death."""
    one_run(tmp_path, None)
    a_board(tmp_path, "board-0-11", 7).close()
    worker = Board.create(1)
    board_file.move(worker, tmp_path / "board-0-11")
    with Journal.open(tmp_path, now=9.0) as journal:
        assert journal.left == ()
        assert journal.history.last is not None
        assert journal.history.last.held_at_death == ()
    worker.close()
    assert (tmp_path / "board-0-11").exists()
    look(tmp_path)
    assert not (tmp_path / "board-0-11").exists()  # nobody misses it any more


def test_a_board_after_an_exit_line_and_what_is_no_board(tmp_path: Path) -> None:
    one_run(tmp_path, 4)
    a_board(tmp_path, "board-0-11", 7).close()
    (tmp_path / "board-1-12").write_bytes(b"nonsense")
    with Journal.open(tmp_path, now=9.0) as journal:
        assert journal.left == ()
        assert journal.history.counts == {RESTART: 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, LOCK]


def test_another_service_s_boards_are_not_touched(tmp_path: Path) -> None:
    with Journal.open(tmp_path, now=1.0) as journal:
        journal.write_start(at=1.0, version="1.2.3")
        a_board(tmp_path, "board-0-11", 7).close()
        with pytest.raises(ConfigError):
            Journal.open(tmp_path, now=2.0)
        assert (tmp_path / "board-0-11").exists()


def test_boards_stay_in_memory_where_no_file_can_be_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    boards = Boards(tmp_path / "missing")
    assert boards.create(0, 11, 4, "billing") is None
    assert boards.create(1, 12, 4, "billing") is None
    assert len([r for r in caplog.records if "PENSTOCK_STATE_DIR" in r.getMessage()]) == 1
    assert Boards(None).create(0, 11, 4, "billing") is None
    assert len(caplog.records) == 1  # the journal told that one
    (tmp_path / "board-0-11").write_bytes(b"of an earlier process with this number")
    made = Boards(tmp_path).create(0, 11, 4, "billing")
    assert made is not None
    assert made[1] == tmp_path / "board-0-11"
    made[0].close()
