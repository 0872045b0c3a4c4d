"""A journal that cannot be kept costs a warning, never a service."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.service import Service
from tests.conftest import unavailable

Launch = Callable[..., Service]

WARNING = "the journal cannot be written"


def warnings(service: Service, text: str = WARNING) -> int:
    return sum(text in str(line.get("event")) for line in service.log_lines())


@pytest.fixture
def private_mounts() -> None:
    """Whether mounts can be made that nobody else sees."""
    if shutil.which("unshare") is None:
        unavailable("mounts", "there is no unshare")
    probe = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    )
    if probe.returncode:
        unavailable("mounts", probe.stderr.decode())


def test_below_a_file(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    service = launch(state_dir=tmp_path / "file" / "state").start().until_ready()
    assert service.metrics()["penstock_unplanned_exits_total"] == 0
    assert service.stop() == 0
    assert warnings(service) == 1
    assert service.exit_record()["code"] == 0


@pytest.mark.usefixtures("private_mounts")
@pytest.mark.parametrize(
    "trouble",
    ["head -c 8192 /dev/zero > $D/filler 2>&-; true", "mount -o remount,ro none $D"],
    ids=["full", "read-only"],
)
def test_disk(launch: Launch, tmp_path: Path, trouble: str) -> None:
    """Full: nothing can be appended. Read-only: the file cannot even be made."""
    state = tmp_path / "state"
    state.mkdir()
    script = f'D={state}; mount -t tmpfs -o size=4k none $D && {{ {trouble}; }} && exec "$@"'
    service = launch(state_dir=state, wrapper=("unshare", "-m", "sh", "-c", script, "sh"))
    service.start().until_ready()
    assert service.stop(signal.SIGUSR2) == 4
    assert warnings(service) == 1
    assert service.exit_record()["code"] == 4


def test_torn_journal(launch: Launch) -> None:
    service = launch()
    state = service.directory / "state"
    state.mkdir()
    service.start().until_ready()
    assert service.stop(signal.SIGUSR2) == 4
    journal = state / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'garbage\n\x00\xff\n{"t":"start","ru')
    service.start().until_ready()
    assert warnings(service, "damaged lines") == 1
    metrics = service.metrics()
    assert metrics['penstock_exits_total{code="4",name="RESTART",planned="true"}'] == 1
    assert metrics["penstock_unplanned_exits_total"] == 0
    assert service.stop() == 0
    last = json.loads(journal.read_bytes().splitlines()[-1])
    assert (last["t"], last["code"]) == ("exit", 0)
