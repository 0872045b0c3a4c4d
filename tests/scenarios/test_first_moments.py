"""Signals in the first moments of a process, and to everything at once. No broker is needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.service import Service
from tests.conftest import unavailable

NOWHERE = "127.0.0.1:1"
Make = Callable[..., Service]

APP = """
from penstock import App
app = App()
@app.subscribe("orders", group="billing")
def bill(record): ...
"""


@pytest.fixture
def start(make_service: Make, tmp_path: Path) -> Callable[..., Service]:
    def make(text: str = APP, **options: object) -> Service:
        service = make_service("shop:app", bootstrap_servers=NOWHERE, **options)
        (service.directory / "shop.py").write_text(text)
        return service.start()

    return make


def stat_of(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def mask_of(pid: int, name: str) -> set[int]:
    """Signals in a mask of /proc: SigBlk, SigIgn, SigCgt."""
    line = next(line for line in stat_of(pid).splitlines() if line.startswith(name))
    value = int(line.split()[1], 16)
    return {number for number in range(1, 65) if value >> (number - 1) & 1}


def until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.002)  # the poll interval of a wait on a condition


def test_signals_are_held_before_anything_is_imported(tmp_path: Path) -> None:
    """The first instruction: whatever the package needs is imported behind it."""
    code = (
        "import sys; before = set(sys.modules); sys.argv = ['penstock', 'run', 'a:b']\n"
        "from penstock import held\n"
        "held.hold = lambda: (print(*sorted(set(sys.modules) - before)), sys.exit())\n"
        "from penstock.__main__ import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.split() == [
        "penstock",
        "penstock.__main__",
        "penstock.held",
        "penstock.streams",
    ]


#: The first thing that the command line imports, made slow; the directory comes first on the path.
SLOW = """
import os, pathlib, sys, time
pathlib.Path("importing").touch()
while not os.path.exists("go"):
    time.sleep(0.01)
sys.path.remove(os.path.dirname(__file__))
del sys.modules["click"]
import click
"""


def importing(service: Service) -> Service:
    """Started, and still at its first imports; goes on with the file ``go``."""
    (service.directory / "click.py").write_text(SLOW)
    (service.directory / "shop.py").write_text(APP)
    service.start()
    until((service.directory / "importing").exists, "imports")
    return service


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGUSR2, 4)])
def test_a_signal_in_the_first_moments_waits(make_service: Make, number: int, code: int) -> None:
    """Before there are handlers, TERM would be a death (or, for PID 1, nothing at all)."""
    # What is before is the interpreter's own start, some 10 ms.
    service = importing(make_service("shop:app", bootstrap_servers=NOWHERE))
    service.send(number)
    (service.directory / "go").touch()
    assert service.wait() == code, service.log_tail()


def test_as_pid_1_a_signal_in_the_first_moments_is_not_dropped(make_service: Make) -> None:
    """The kernel drops what PID 1 has no handler for, unless it is held."""
    wrapper = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    if subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode:
        unavailable("pid namespaces", "unshare --pid is refused")
    service = importing(make_service("shop:app", bootstrap_servers=NOWHERE, wrapper=wrapper))
    (init,) = service.workers()
    os.kill(init, signal.SIGUSR2)
    (service.directory / "go").touch()
    assert service.wait() == 4, service.log_tail()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_to_the_group_while_workers_start(
    start: Callable[..., Service], number: int
) -> None:
    """Ctrl-C, timeout(1), a shell: everything that is in the group gets it."""
    service = start(wrapper=("setsid",), workers=2)
    until(lambda: len(service.workers()) == 2, "workers")
    os.killpg(service.pid, number)
    assert service.wait() == 0, service.log_tail()


def test_a_signal_to_every_process_while_they_start(start: Callable[..., Service]) -> None:
    """What a container's runtime or systemd (KillMode=control-group) does."""
    service = start()
    until(service.workers, "a worker")
    (worker,) = service.workers()
    os.kill(worker, signal.SIGTERM)
    os.kill(worker, signal.SIGHUP)
    os.kill(service.pid, signal.SIGTERM)
    assert service.wait() == 0, service.log_tail()


def test_what_a_handler_starts_has_the_usual_signals(start: Callable[..., Service]) -> None:
    """Neither ignored nor held back: ``terminate()`` ends it, forked or exec'ed."""
    text = APP + (
        "import multiprocessing, pathlib, subprocess, threading\n"
        "def sleep():\n"
        "    import time\n"
        "    time.sleep(60)\n"
        "def check():\n"
        "    children = [subprocess.Popen(['sleep', '60'])]\n"
        "    for kind in ('fork', 'forkserver', 'spawn'):\n"
        "        children.append(multiprocessing.get_context(kind).Process(target=sleep))\n"
        "        children[-1].start()\n"
        "    lines = []\n"
        "    for child in children:\n"
        "        status = open(f'/proc/{child.pid}/status')\n"
        "        lines += [line for line in status if line[:6] in ('SigBlk', 'SigIgn')]\n"
        "        child.terminate()\n"
        "    children[0].wait(20)\n"
        "    for child in children[1:]:\n"
        "        child.join(20)\n"
        "    codes = [children[0].returncode] + [c.exitcode for c in children[1:]]\n"
        "    pathlib.Path('told.tmp').write_text(f'{codes}\\n' + ''.join(lines))\n"
        "    pathlib.Path('told.tmp').rename('told')\n"
        "import sys\n"
        "if 'penstock.worker.deaf' in sys.modules:\n"
        "    threading.Thread(target=check).start()\n"
    )
    service = start(text)
    told = service.directory / "told"
    service.until(told.exists, "the children's word")
    codes, *lines = told.read_text().splitlines()
    assert codes == "[-15, -15, -15, -15]"
    ours = sum(1 << (n - 1) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP))
    for line in lines[:4]:  # of the exec'ed and the forked one
        assert int(line.split()[1], 16) & ours == 0, line
    assert service.stop() == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_changes_no_exit_code(make_service: Make, closed: str) -> None:
    """Its number must not go to a socket or a pipe of ours either."""
    shell = ("sh", "-c", f'exec "$0" "$@" {closed}')
    service = make_service("shop:app", bootstrap_servers=NOWHERE, wrapper=shell)
    (service.directory / "shop.py").write_text(APP + "print('hello')\n")
    service.start().until_listening()
    worker = service.workers()[0]
    for pid in (service.pid, worker):
        for fd in range(3):
            what = str(Path(f"/proc/{pid}/fd/{fd}").readlink())
            assert not what.startswith(("socket", "pipe", "anon")), what
    assert service.stop(signal.SIGUSR2) == 4, service.log_tail()


@pytest.mark.parametrize("sink", ["> >(head -c 1) 2>&1", ">/dev/full 2>&1"])
def test_output_that_cannot_be_written_changes_no_exit_code(make_service: Make, sink: str) -> None:
    """``penstock run … | head``, and a disk that is full."""
    shell = ("bash", "-c", f'exec "$0" "$@" {sink}')
    service = make_service("shop:app", bootstrap_servers=NOWHERE, wrapper=shell)
    text = "import sys\nprint('hello')\nsys.stderr.write('hello')\nsys.stderr.flush()\n"
    (service.directory / "shop.py").write_text(APP + text)
    service.start().until_listening()
    assert service.stop(signal.SIGUSR2) == 4


def test_output_that_nobody_takes_holds_up_nothing(make_service: Make) -> None:
    """``penstock run … | less``: the pipe is full, and its reader sleeps."""
    full = "import os, sys; os.set_blocking(1, False)\ntry:\n  while 1: os.write(1, b'x' * 4096)\n"
    full += "except BlockingIOError: os.set_blocking(1, True); os.execvp(sys.argv[1], sys.argv[1:])"
    shell = ("bash", "-c", f'exec {sys.executable} -c "$FULL" "$0" "$@" > >(sleep 60) 2>&1')
    env = {"FULL": full}
    service = make_service("shop:app", bootstrap_servers=NOWHERE, wrapper=shell, env=env)
    (service.directory / "shop.py").write_text(APP)
    service.start().until_listening()
    assert service.stop(signal.SIGUSR2) == 4
