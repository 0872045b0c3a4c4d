"""The demo, run as its users run it: a process, its exit code and what it prints."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.broker import Broker
from devtools.service import alive

_ROOT = Path(__file__).resolve().parents[2]
_QUICK = ("--seconds", "1", "--rate", "200")


def _start(tmp_path: Path, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    env |= {"PYTHONPATH": f"{_ROOT / 'app'}:{_ROOT}", "TMPDIR": str(tmp_path), **settings}
    return subprocess.Popen(
        [sys.executable, "-m", "devtools.demo", *_QUICK, *arguments],
        cwd=_ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _expect_kept(demo: subprocess.Popen[str]) -> str:
    try:
        told, _ = demo.communicate(timeout=150)
    except BaseException:
        demo.send_signal(signal.SIGINT)  # so that it ends what it started
        demo.wait(30)
        raise
    assert demo.returncode == 0, told
    produced, handled, *wrong = re.findall(r"\d+", told.partition("OUT OF ORDER\n")[2])[:5]
    assert int(produced) > 200
    assert handled == produced
    assert wrong == ["0", "0", "0"]
    rows = [re.split(" {2,}", line) for line in told.splitlines() if line.startswith("restart ")]
    assert [row[0] for row in rows] == ["restart 1", "restart 2", "restart 3"]
    assert all("4 RESTART" in row and row[-1] == "0" for row in rows)
    assert "Kept:" in told
    return told


@pytest.mark.parametrize("whose", ["own", "given"])
def test_on_kafka(whose: str, broker: Broker, tmp_path: Path) -> None:
    settings = {"PENSTOCK_BOOTSTRAP_SERVERS": broker.bootstrap} if whose == "given" else {}
    told = _expect_kept(_start(tmp_path, **settings))
    assert ("your Kafka at" in told) is (whose == "given")
    assert not list(tmp_path.glob("penstock-demo-*")), "evidence of a success is not kept"


def test_without_java(tmp_path: Path) -> None:
    told = _expect_kept(_start(tmp_path, "--mock"))
    assert "mock cluster" in told
    assert "one worker" in told


def test_interrupt_ends_everything(tmp_path: Path) -> None:
    demo = _start(tmp_path, "--mock")
    assert demo.stdout is not None
    ready = next(line for line in demo.stdout if "ready, pid" in line)
    demo.send_signal(signal.SIGINT)
    told, _ = demo.communicate(timeout=30)
    assert demo.returncode == 130, told
    assert not alive(int(ready.split()[-1]))
