"""A worker and what it started end together, in every way a worker can end. No broker is needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.service import Service, alive, worker_pids
from penstock import processes
from tests.conftest import unavailable

NOWHERE = "127.0.0.1:1"
Make = Callable[..., Service]

#: Started when a worker imports it: an obedient child, one that ignores TERM, one that left the
#: session, one that was forked twice, ``multiprocessing``'s; and a thread that nobody joins.
APP = """
import multiprocessing, os, pathlib, signal, subprocess, sys, threading, time
from penstock import App

app = App()

@app.subscribe("orders", group="billing")
def bill(record): ...

def sleep():
    time.sleep(300)

def note(pid):
    with open("children", "a") as file:
        file.write(f"{os.getpid()} {pid}\\n")

def start():
    for command in (
        ["sleep", "300"],
        ["sh", "-c", "trap '' TERM; sleep 300; sleep 300"],
        ["setsid", "sleep", "300"],
    ):
        note(subprocess.Popen(command).pid)
    daemon = subprocess.run(
        ["sh", "-c", "setsid sleep 300 >/dev/null & echo $!"], stdout=subprocess.PIPE, text=True
    )
    note(int(daemon.stdout))
    process = multiprocessing.get_context("fork").Process(target=sleep)
    process.start()
    note(process.pid)
    pathlib.Path("all").touch()

if "penstock.worker.deaf" in sys.modules:
    start()
    threading.Thread(target=sleep).start()
    def leave():
        while not os.path.exists("exit"):
            time.sleep(0.01)
        os._exit(17)
    threading.Thread(target=leave, daemon=True).start()
"""


@pytest.fixture
def service(make_service: Make) -> Service:
    service = make_service("shop:app", bootstrap_servers=NOWHERE, drain_timeout=20)
    (service.directory / "shop.py").write_text(APP)
    return service.start().until_listening()


def children(service: Service) -> list[int]:
    assert (service.directory / "all").exists()
    lines = (service.directory / "children").read_text().splitlines()
    return [int(line.split()[1]) for line in lines]


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def worker_of(service: Service) -> int:
    return int((service.directory / "children").read_text().split()[0])


def until_gone(pids: list[int], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.01)  # the poll interval of a wait on a condition


def test_a_clean_end(service: Service) -> None:
    """Neither a thread nor a child of ``multiprocessing``'s stretches the drain."""
    started = children(service)
    assert all(map(alive, started))
    assert service.stop(signal.SIGUSR2) == 4, service.log_tail()
    assert [pid for pid in started if alive(pid)] == []
    assert service.exit_record()["drain_seconds"] < 10
    told = {
        line["pid"]: line["signal"]
        for line in service.log_lines("ended what a handler left running")
    }
    assert set(started) <= set(told)
    assert told[started[0]] == "TERM"
    assert told[started[1]] == "KILL"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, 137), (signal.SIGSEGV, 139), (None, 1)]
)
def test_a_hard_end(service: Service, number: int | None, code: int) -> None:
    started = children(service)
    worker = worker_of(service)
    if number is None:
        (service.directory / "exit").touch()  # os._exit(17)
    else:
        os.kill(worker, number)
    assert service.wait() == code, service.log_tail()
    assert [pid for pid in started if alive(pid)] == []
    # When its end was seen, not at the service's: the next worker is alone.
    killed = service.log_lines("killed what a worker left behind")
    assert {line["pid"] for line in killed if line.get("worker") == 0} >= set(started)


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGKILL])
def test_shared_memory_is_removed(make_service: Make, number: int) -> None:
    """``multiprocessing``'s tracker does that; it is given the moment that it needs."""
    name = f"penstock-test-{os.getpid()}-{number}"
    shared = (
        "if 'penstock.worker.deaf' in sys.modules:\n"
        "    from multiprocessing.shared_memory import SharedMemory\n"
        f"    memory = SharedMemory({name!r}, create=True, size=1)\n"
    )
    service = make_service("shop:app", bootstrap_servers=NOWHERE)
    (service.directory / "shop.py").write_text(APP + shared)
    service.start().until_listening()
    path = Path("/dev/shm", name)
    assert path.exists()
    os.kill(worker_of(service) if number == signal.SIGKILL else service.pid, number)
    assert service.wait() == (137 if number == signal.SIGKILL else 4), service.log_tail()
    deadline = time.monotonic() + 20
    while path.exists():
        assert time.monotonic() < deadline, "leaked"
        time.sleep(0.01)  # the poll interval of a wait on a condition


def test_an_orphaned_worker(service: Service) -> None:
    """Its supervisor was killed: it ends what it started, and itself."""
    started = children(service)
    worker = worker_of(service)
    service.send(signal.SIGKILL)
    assert service.wait() == 137
    until_gone([worker, *started])


def test_what_bears_no_sign_of_its_worker(make_service: Make) -> None:
    """A daemon with an environment of its own; and a child from before belongs to nobody here."""
    shell = ("sh", "-c", 'sleep 300 & echo $! > before; exec "$0" "$@"')
    service = make_service("shop:app", bootstrap_servers=NOWHERE, wrapper=shell)
    daemon = '["sh", "-c", "env -i setsid sleep 300 >/dev/null & echo $!"]'
    (service.directory / "shop.py").write_text(APP.replace('["setsid", "sleep", "300"]', daemon))
    service.start().until_listening()
    before = int((service.directory / "before").read_text())
    sleepers = processes.offspring(processes.table(), (service.pid,))
    assert before in sleepers
    try:
        assert service.stop() == 0
        assert [pid for pid in sleepers if alive(pid)] == [before]
    finally:
        os.kill(before, signal.SIGKILL)


def test_as_pid_1_the_orphans_of_others_are_left_alone(make_service: Make) -> None:
    """What ``kubectl exec`` leaves running is handed to PID 1, and is none of its business."""
    wrapper = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    if subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode:
        unavailable("pid namespaces", "unshare --pid is refused")
    service = make_service("shop:app", bootstrap_servers=NOWHERE, wrapper=wrapper)
    (service.directory / "shop.py").write_text(APP)
    service.start().until_listening()
    (init,) = worker_pids(service.pid)
    enter = ["nsenter", "--target", str(init), "--pid", "--mount"]
    orphan = "for i in 1 2 3; do true & done; exec -a of-nobody sleep 300 &"
    subprocess.run([*enter, "bash", "-c", orphan], check=True)

    def handed() -> list[bytes]:
        here = [cmdline(pid) for pid in worker_pids(init)]
        return [line for line in here if not line.startswith(sys.executable.encode())]

    # The three that ended are reaped; the fourth is there.
    service.until(lambda: any(line.startswith(b"of-nobody") for line in handed()), "an orphan")
    service.until(lambda: b"" not in handed(), "zombies to be reaped")
    (worker,) = (pid for pid in worker_pids(init) if b"penstock.worker" in cmdline(pid))
    os.kill(worker, signal.SIGKILL)
    assert service.wait() == 137, service.log_tail()
    killed = [line["program"] for line in service.log_lines("killed what a worker left behind")]
    assert len(killed) >= 5
    assert "of-nobody" not in killed
