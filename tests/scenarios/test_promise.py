"""The promise: restarts on purpose, under load, with 0 lost, 0 repeated, in order, exit 4.

Judged by the checker, a program of its own that reads only what the handlers noted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.broker import Admin, Broker
from devtools.checker import check
from devtools.service import Service, worker_pids
from devtools.stream import Stream
from tests.scenarios.support import Make, rows, until_all_handled, until_handled

PARTITIONS = 12
SERVICES = 3
ROUNDS = 3

#: Seconds; a minute when the machine is quiet.
pytestmark = pytest.mark.timeout(600)

MakeGroup = Callable[..., list[Service]]


@pytest.fixture
def make_group(
    make_service: Make, broker: Broker, topic: str, group: str, tmp_path: Path
) -> MakeGroup:
    def make(**settings: object) -> list[Service]:
        services = [
            make_service(
                bootstrap_servers=broker.bootstrap,
                topics=topic,
                group_id=group,
                env={"LEDGER": str(tmp_path / "ledger"), "LEDGER_SLEEP": "0.002"},
                **settings,
            ).start()
            for _ in range(SERVICES)
        ]
        for service in services:
            service.until_ready()
        return services

    return make


def let_all_be_handled(stream: Stream, services: list[Service], tmp_path: Path) -> Path:
    """Stop the stream, wait for the last record, stop the services."""
    expected, ledger = tmp_path / "expected", tmp_path / "ledger"
    total = stream.stop(expected)
    try:
        until_all_handled(services[0], ledger, total)
    except Exception as error:
        raise AssertionError(str(check(expected, [ledger]))) from error
    for service in services:
        assert service.stop() == 0
    return expected


def test_planned_restarts(
    make_group: MakeGroup, broker: Broker, topic: str, tmp_path: Path
) -> None:
    services = make_group()
    stream = Stream(broker.bootstrap, topic, PARTITIONS, rate=600).start()
    ledger = tmp_path / "ledger"
    codes = []
    for _ in range(ROUNDS):
        for service in services:
            until_handled(services[0], ledger, 300)
            codes.append(service.stop(signal.SIGUSR2))
            service.start().until_ready()
    expected = let_all_be_handled(stream, services, tmp_path)
    command = [sys.executable, "-m", "devtools.checker", str(expected), str(ledger)]
    verdict = subprocess.run(command, capture_output=True, text=True, check=False)
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    assert codes == [4] * SERVICES * ROUNDS


def kill_whole(service: Service) -> set[int]:
    """KILL supervisor and workers, as the end of their container would; their pids."""
    pids = [*worker_pids(service.pid), service.pid]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert service.wait() == 128 + signal.SIGKILL
    return set(pids)


def test_kills(
    make_group: MakeGroup, broker: Broker, admin: Admin, topic: str, group: str, tmp_path: Path
) -> None:
    """A KILL loses nothing, and repeats only what was not committed when it came."""
    services = make_group(session_timeout=6, heartbeat_interval=1.5)
    stream = Stream(broker.bootstrap, topic, PARTITIONS, rate=500).start()
    ledger = tmp_path / "ledger"
    committed_at: dict[int, dict[int, int]] = {}
    for service in services:
        until_handled(services[0], ledger, 500)
        dead = kill_whole(service)
        # After the kill: nothing more can be committed for the dead, and nobody has
        # committed for their partitions yet that did not take up from there.
        committed = admin.committed_offsets(group, topic)
        committed_at |= dict.fromkeys(dead, committed)
        service.start().until_ready()
        until_handled(service, ledger, 500)
    expected = let_all_be_handled(stream, services, tmp_path)
    report = check(expected, [ledger])
    assert (report.lost, report.disordered, report.unknown) == (0, 0, 0), str(report)
    first: dict[tuple[int, int], int] = {}
    for partition, offset, pid in rows(ledger):
        if (partition, offset) not in first:
            first[partition, offset] = pid
            continue
        by = first[partition, offset]
        assert by in committed_at, f"{partition}@{offset} was repeated without a kill"
        assert offset >= committed_at[by].get(partition, 0), f"{partition}@{offset} was committed"
