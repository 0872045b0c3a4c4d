"""Giving up a static member's seat without a client of its own."""

from __future__ import annotations

import time

import pytest

from devtools.broker import Admin, Broker
from penstock.kafka.seats import give_up
from penstock.seat import Seat
from penstock.settings import Settings
from tests.integration.member import Member, until

pytestmark = pytest.mark.kafka


def settings(bootstrap: str) -> Settings:
    return Settings.model_validate({"bootstrap_servers": bootstrap})


def test_the_seat_that_a_process_kept_is_given_up_by_the_next(
    broker: Broker, admin: Admin, topic: str, group: str
) -> None:
    member = Member(broker.bootstrap, group, topic, instance="billing-0")
    until(lambda: len(member.notebook.owned) == 12, member)
    member.close(Seat.KEEP)
    assert len(admin.group_members(group)) == 1
    assert give_up(settings(broker.bootstrap), group, "billing-0", "", 10.0) is None
    assert admin.group_members(group) == ()


def test_a_seat_that_nobody_has_is_given_up(broker: Broker, group: str) -> None:
    assert give_up(settings(broker.bootstrap), group, "billing-0", "", 10.0) is None


def test_somebody_who_has_taken_it_keeps_it(
    broker: Broker, admin: Admin, topic: str, group: str
) -> None:
    with Member(broker.bootstrap, group, topic, instance="billing-0") as member:
        until(lambda: len(member.notebook.owned) == 12, member)
        gone = "billing-0-00000000-0000-0000-0000-000000000000"
        assert give_up(settings(broker.bootstrap), group, "billing-0", gone, 10.0) is None
        assert len(admin.group_members(group)) == 1


def test_without_a_broker_it_says_so_in_time() -> None:
    began = time.monotonic()
    why = give_up(settings("127.0.0.1:1"), "billing", "billing-0", "", 1.0)
    assert time.monotonic() - began < 10.0
    assert why is not None
    assert why.startswith("could not give up the seat billing-0 in group billing: ")
    assert why.endswith("its partitions wait for PENSTOCK_SESSION_TIMEOUT")
