"""The last moments of a worker process: what is run, what is ended, what is not waited for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from penstock import processes

LEAVE = "from penstock.worker import leaving\nleaving.GRACE, leaving.EXIT_HANDLERS = 0.1, 0.3\n"


def run(code: str, *, mark: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """A process of its own that is marked like a worker of this one."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more}
    env[processes.MARK] = mark or f"{os.getpid()}-{time.monotonic_ns()}"
    return subprocess.run(
        [sys.executable, "-c", LEAVE + code],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )


def test_exit_handlers_run_and_output_is_written() -> None:
    done = run(
        "import atexit, sys\n"
        "atexit.register(lambda: print('flushed'))\n"
        "sys.stdout.write('said, ')\n"
        "leaving.leave(4)"
    )
    assert (done.returncode, done.stdout) == (4, "said, flushed\n"), done.stderr


def test_an_exit_handler_that_does_not_end_is_left() -> None:
    done = run("import atexit, time\natexit.register(lambda: time.sleep(300))\nleaving.leave(4)")
    assert done.returncode == 4
    assert "exit handlers of the application take too long" in done.stdout + done.stderr


def test_an_exit_handler_that_raises_changes_no_code() -> None:
    assert run("import atexit\natexit.register(lambda: 1 / 0)\nleaving.leave(4)").returncode == 4


def test_no_thread_is_waited_for() -> None:
    thread = "import threading, time\nthreading.Thread(target=lambda: time.sleep(300)).start()\n"
    assert run(thread + "leaving.leave(0)").returncode == 0


def test_a_stuck_process_of_multiprocessings_is_not_waited_for() -> None:
    """Python's own exit handler joins them."""
    code = (
        "import multiprocessing, signal, time\n"
        "def sleep():\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    print('deaf', flush=True)\n"
        "    time.sleep(300)\n"
        "process = multiprocessing.get_context('fork').Process(target=sleep)\n"
        "process.start()\n"
        "leaving.leave(0)"
    )
    assert run(code).returncode == 0


def start_one(path: Path) -> str:
    return (
        "import pathlib, subprocess\n"
        "child = subprocess.Popen(['sleep', '300'], stdout=subprocess.DEVNULL,\n"
        "                         stderr=subprocess.DEVNULL)\n"
        f"pathlib.Path({str(path)!r}).write_text(str(child.pid))\n"
    )


def ended(path: Path) -> bool:
    process = processes.read(int(path.read_text()))
    return process is None or process.ended


def test_whoever_abandons_leaves_the_rest_to_the_supervisor(tmp_path: Path) -> None:
    assert run(start_one(tmp_path / "pid") + "leaving.abandon(2)").returncode == 2
    assert not ended(tmp_path / "pid")
    subprocess.run(["kill", (tmp_path / "pid").read_text()], check=True)


def test_an_orphan_that_abandons_has_no_supervisor(tmp_path: Path) -> None:
    done = run(start_one(tmp_path / "pid") + "leaving.abandon(2)", mark="1-0")
    assert done.returncode == 2
    assert ended(tmp_path / "pid")
