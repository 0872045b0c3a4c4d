"""Which processes belong to a worker, and that exactly those are ended."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from penstock import processes
from penstock.processes import Process, belonging, offspring

#: pid: (parent, session). 10 is the supervisor, 20 and 30 its workers, 1 the init.
TREE = {
    1: (0, 1),
    10: (1, 10),
    20: (10, 20),  # a worker
    21: (20, 20),  # what it started
    22: (21, 20),
    23: (20, 23),  # … in a session of its own
    24: (23, 23),
    25: (10, 20),  # its parent died: handed to the supervisor
    26: (10, 26),  # … and in a session of its own; bears the mark
    27: (26, 27),  # … started by that one, without the mark
    28: (10, 28),  # bears no sign at all
    30: (10, 30),  # the other worker
    31: (30, 30),
    32: (30, 32),
    40: (1, 40),  # somebody else's, and with a mark that is copied
}
MARKED = {20, 21, 22, 23, 24, 26, 40}


def tree(**changes: tuple[int, int]) -> dict[int, Process]:
    rows = {**TREE, **{int(pid.removeprefix("p")): row for pid, row in changes.items()}}
    return {pid: Process(pid, *row, started=pid, ended=False) for pid, row in rows.items()}


def test_offspring() -> None:
    assert offspring(tree(), (20,)) == {21, 22, 23, 24}
    assert offspring(tree(), (20, 30)) == {21, 22, 23, 24, 31, 32}
    assert offspring(tree(), ()) == set()


def test_a_circle_ends() -> None:
    """The table is not read in one moment: a pid may be given anew while it is."""
    assert offspring(tree(p21=(22, 20)), (21,)) == {21, 22}


@pytest.mark.parametrize(
    ("within", "expected"),
    [(10, {21, 22, 23, 24, 25, 26, 27}), (None, {21, 22, 23, 24, 25, 26, 27, 40})],
)
def test_what_belongs_to_a_worker(within: int | None, expected: set[int]) -> None:
    assert belonging(tree(), 20, marked=MARKED.__contains__, within=within) == expected


def test_what_belongs_to_a_worker_that_is_dead() -> None:
    """Its children have been handed on already."""
    orphaned = {"p21": (10, 20), "p23": (10, 23)}
    found = belonging(tree(**orphaned), 20, marked=MARKED.__contains__, within=10)
    assert found == {21, 22, 23, 24, 25, 26, 27}


def test_nothing_of_the_other_worker_or_of_the_supervisor() -> None:
    found = belonging(tree(), 30, marked=lambda _: False, within=10)
    assert found == {31, 32}


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        ["sleep", "60"], start_new_session=True, env={**os.environ, processes.MARK: "1-(x)"}
    )
    yield process
    process.kill()
    process.wait()


def test_a_process_is_read(sleeper: subprocess.Popen[bytes]) -> None:
    found = processes.table()[sleeper.pid]
    assert (found.parent, found.session, found.ended) == (os.getpid(), sleeper.pid, False)
    assert processes.name_of(sleeper.pid) in ("sleep", sys.executable)  # before and after exec
    sleeper.kill()
    processes.wait_for([found], 20)
    read = processes.read(sleeper.pid)
    assert read is not None
    assert read.ended  # but not reaped
    sleeper.wait()
    assert processes.read(sleeper.pid) is None
    assert not processes.send(found, signal.SIGKILL)


def test_a_pid_that_was_given_anew_is_not_signalled(sleeper: subprocess.Popen[bytes]) -> None:
    found = processes.table()[sleeper.pid]
    earlier = Process(found.pid, found.parent, found.session, found.started - 1, ended=False)
    assert not processes.send(earlier, signal.SIGKILL)
    assert sleeper.poll() is None
    assert processes.send(found, signal.SIGKILL)
    assert sleeper.wait(20) == -signal.SIGKILL


def test_without_process_handles(
    monkeypatch: pytest.MonkeyPatch, sleeper: subprocess.Popen[bytes]
) -> None:
    """Some sandboxes have none: waited for all the same, and signalled by number."""

    def none(_pid: int) -> int:
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(os, "pidfd_open", none)
    found = processes.table()[sleeper.pid]
    before = time.monotonic()
    processes.wait_for([found], 0.1)
    assert time.monotonic() - before >= 0.1
    assert processes.send(found, signal.SIGKILL)
    processes.wait_for([found], 20)
    read = processes.read(sleeper.pid)
    assert read is not None
    assert read.ended


def test_the_processes_of_another_namespace_are_nobody_s() -> None:
    """``unshare --pid`` without ``--mount-proc``: the numbers in /proc mean nothing here."""
    inside = "import os; from penstock import processes; print(os.getpid(), processes.table())"
    done = subprocess.run(
        ["unshare", "--pid", "--fork", sys.executable, "-c", inside],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no pid namespaces: {done.stderr}")
    assert done.stdout.split() == ["1", "{}"]
