"""What goes wrong on the client's own thread ends the worker; it is not logged and forgotten."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Any

import pytest
from kafka import errors as k

from devtools.broker import Broker
from penstock.errors import KafkaFailure
from penstock.record import Partition
from tests.integration.member import Member, Notebook, until

pytestmark = pytest.mark.kafka


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_io_thread_that_ends(broker: Broker, topic: str, group: str) -> None:
    """Also by an error that looks as if it would pass."""
    member = Member(broker.bootstrap, group, topic)
    until(lambda: len(member.notebook.owned) == 12, member)
    net: Any = member.engine._consumer._net
    thread: threading.Thread = net._io_thread

    def fault() -> None:
        raise k.KafkaConnectionError("a bug")

    net._poll_once = fault
    net.wakeup()
    with pytest.raises(KafkaFailure, match="the Kafka client's I/O thread ended"):
        until(lambda: False, member)
    member.engine.wake()  # from a handler's thread: it must not end as well
    member.engine.closing = True
    thread.join(10)  # what it raised is told at its very end, and must be told within this test
    assert not thread.is_alive()


@pytest.mark.parametrize("when", ["assigned", "revoking"])
def test_a_rebalance_that_meets_a_fault_of_ours(
    broker: Broker, topic: str, group: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def fault(_self: Notebook, _partitions: Collection[Partition]) -> bool:
        raise AssertionError("a bug")

    member = Member(broker.bootstrap, group, topic, heartbeat_interval=0.5)
    with member:
        if when == "assigned":
            monkeypatch.setattr(Notebook, when, fault)
            with pytest.raises(KafkaFailure, match="taking partitions in failed: AssertionError"):
                until(lambda: False, member)
            monkeypatch.undo()
            return
        until(lambda: len(member.notebook.owned) == 12, member)
        with Member(broker.bootstrap, group, topic, heartbeat_interval=0.5) as other:
            monkeypatch.setattr(Notebook, when, fault)
            with pytest.raises(KafkaFailure, match="giving partitions up failed: AssertionError"):
                until(lambda: False, member, other)
            monkeypatch.undo()
