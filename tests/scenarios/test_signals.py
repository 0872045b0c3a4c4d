"""Signals and the exit codes they earn."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.broker import Broker
from devtools.checker import check
from devtools.service import Service
from devtools.stream import Stream

Make = Callable[..., Service]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 0),
        (signal.SIGINT, 0),
        (signal.SIGQUIT, 0),
        (signal.SIGUSR2, 4),
    ],
)
def test_idle(
    make_service: Make, broker: Broker, topic: str, group: str, number: int, code: int
) -> None:
    service = make_service(bootstrap_servers=broker.bootstrap, topics=topic, group_id=group)
    service.start().until_ready()
    assert service.stop(number) == code
    record = service.exit_record()
    assert record["code"] == code
    assert record["planned"] is True


def test_usr2_under_load_loses_and_repeats_nothing(
    make_service: Make, broker: Broker, topic: str, group: str, tmp_path: Path
) -> None:
    service = make_service(bootstrap_servers=broker.bootstrap, topics=topic, group_id=group)
    stream = Stream(broker.bootstrap, topic, 12, rate=2_000).start()
    for _ in range(3):
        service.start().until_ready()
        before = stream.produced
        service.until(lambda b=before: stream.produced > b + 1_000, "records")
        assert service.stop(signal.SIGUSR2) == 4
    expected = tmp_path / "expected"
    total = stream.stop(expected)
    service.start().until_ready()
    ledger = tmp_path / "ledger"
    service.until(lambda: len(ledger.read_text().splitlines()) >= total, "all records")
    assert service.stop() == 0
    report = check(expected, [ledger])
    assert report.perfect, str(report)
