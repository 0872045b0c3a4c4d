"""What a group committed, texts included, is known before the first record of a partition."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from devtools.broker import Admin, Broker
from devtools.broker.ports import HOST
from devtools.stream import Stream
from penstock import offset_map
from penstock.errors import AuthorizationFailed
from penstock.kafka.port import Membership
from penstock.offset_map import Deaths
from penstock.offsets import Position
from penstock.record import Partition
from penstock.seat import Seat
from tests.integration.member import Member, until
from tests.integration.offset_fetch import (
    COORDINATOR_LOADING,
    GROUP_AUTHORIZATION_FAILED,
    NOT_COORDINATOR,
    OffsetFetchProxy,
)


def text(position: int) -> str:
    """A map within a log of 10: some are finished, one is said to have killed its process."""
    finished = set(range(position + 1, 10, 2))
    return offset_map.encode(position, finished, [Deaths(position, position, 2)])


@pytest.fixture(scope="module")
def spoilt() -> Iterator[Broker]:
    """A broker with a listener for the proxies below."""
    with Broker() as running:
        yield running


@pytest.fixture
def proxy(spoilt: Broker) -> Iterator[OffsetFetchProxy]:
    with OffsetFetchProxy(spoilt._ports.proxied, spoilt._ports.proxy) as proxy:
        yield proxy


@pytest.fixture
def through(spoilt: Broker) -> str:
    """The address of the listener that leads through the proxy."""
    return f"{HOST}:{spoilt._ports.proxy}"


@pytest.fixture
def orders(spoilt: Broker, group: str) -> str:
    """A topic of 3 partitions with 10 records each."""
    name = f"orders-{group}"
    Admin(spoilt.bootstrap).create_topic(name, 3)
    Stream(spoilt.bootstrap, name, 3, rate=0).send(30)
    return name


def committed_by_another(bootstrap: str, group: str, topic: str) -> dict[Partition, Position]:
    """Somebody commits 4 of 10 for partition 0, 7 of 10 for partition 1, nothing for 2."""
    offsets = {Partition(topic, 0): Position(4, text(4)), Partition(topic, 1): Position(7)}
    with Member(bootstrap, group, topic) as earlier:
        until(lambda: earlier.owns(0, 1, 2, topic=topic), earlier)
        earlier.engine.commit(offsets, 5.0)
    return offsets


def test_offsets_come_with_their_texts(spoilt: Broker, orders: str, group: str) -> None:
    offsets = committed_by_another(spoilt.bootstrap, group, orders)
    with Member(spoilt.bootstrap, group, orders) as member:
        until(lambda: len(member.records) == 6 + 3 + 10, member)
        assert member.notebook.owned == {**offsets, Partition(orders, 2): Position(0)}
        assert member.offsets(orders, 0) == [*range(4, 10)]
        assert member.offsets(orders, 1) == [*range(7, 10)]
        assert member.offsets(orders, 2) == [*range(10)]


def test_commits_on_the_way_carry_texts_too(spoilt: Broker, orders: str, group: str) -> None:
    at = {Partition(orders, 1): Position(5, text(5))}
    first = Member(spoilt.bootstrap, group, orders)
    with Member(spoilt.bootstrap, group, orders) as second:
        until(lambda: first.owns(0, 1, 2, topic=orders), first)
        commit = first.engine.commit_soon(at)
        until(commit.outcome, first)
        assert commit.outcome() is True
        later = {Partition(orders, 2): Position(6, text(6))}
        first.notebook.finished = later
        first.close()  # its partitions are revoked: committed on the I/O thread
        until(lambda: second.owns(0, 1, 2, topic=orders), second)
        assert second.notebook.owned == {Partition(orders, 0): Position(0), **at, **later}


def test_an_offset_that_is_out_of_range_is_told_as_committed(
    spoilt: Broker, orders: str, group: str
) -> None:
    offsets = {Partition(orders, 0): Position(1_000)}
    with Member(spoilt.bootstrap, group, orders) as earlier:
        earlier.notebook.quiet = True  # it reads nothing, so its commits are of no epoch
        until(lambda: earlier.owns(0, 1, 2, topic=orders), earlier)
        earlier.engine.commit(offsets, 5.0)
    with Member(spoilt.bootstrap, group, orders) as member:
        until(lambda: len(member.records) == 30, member)
        assert member.notebook.owned[Partition(orders, 0)] == (1_000, "")
        assert member.offsets(orders, 0) == [*range(10)]


@pytest.mark.parametrize(
    "fault", [COORDINATOR_LOADING, NOT_COORDINATOR, -1], ids=["loading", "moved", "cut off"]
)
def test_partitions_wait_for_a_coordinator_that_cannot_tell(
    spoilt: Broker, proxy: OffsetFetchProxy, through: str, orders: str, group: str, fault: int
) -> None:
    offsets = committed_by_another(spoilt.bootstrap, group, orders)
    proxy.fault = fault
    with Member(through, group, orders) as member:
        until(lambda: len(member.engine.assignment()) == 3, member)
        asked, later = proxy.spoiled, time.monotonic() + 6  # longer than the listener waits
        while time.monotonic() < later or proxy.spoiled < asked + 5:
            before = time.monotonic()
            member.poll()
            member.engine.resume(member.engine.assignment())  # not before they are announced
            assert time.monotonic() - before < 3, "polls must come back meanwhile"
        assert member.engine.membership() is Membership.STABLE
        assert member.notebook.told == []
        assert member.records == []
        proxy.fault = None
        until(lambda: len(member.records) == 6 + 3 + 10, member)
        assert member.notebook.owned == {**offsets, Partition(orders, 2): Position(0)}
        assert member.offsets(orders, 0) == [*range(4, 10)]
        assert [kind for kind, _ in member.notebook.told] == ["assigned"]


def test_those_that_come_while_the_worker_is_quiet_stay_paused(
    spoilt: Broker, proxy: OffsetFetchProxy, through: str, orders: str, group: str
) -> None:
    proxy.fault = COORDINATOR_LOADING
    with Member(through, group, orders) as member:
        until(lambda: len(member.engine.assignment()) == 3, member)
        member.notebook.quiet = True
        proxy.fault = None
        until(lambda: member.owns(0, 1, 2, topic=orders), member)
        for _ in range(5):
            member.poll()
        assert member.records == []
        member.engine.resume(member.engine.assignment())
        until(lambda: len(member.records) == 30, member)


def test_what_was_never_announced_is_never_mentioned(
    spoilt: Broker, proxy: OffsetFetchProxy, through: str, orders: str, group: str
) -> None:
    """And when it comes back, what counts is what was committed in between.

    Loading, not moved: each "moved" has the client find its coordinator again, which puts its
    heartbeat off, so that it would never hear of the other member.
    """
    proxy.fault = COORDINATOR_LOADING
    with Member(through, group, orders) as member:
        until(lambda: len(member.engine.assignment()) == 3, member)
        with Member(spoilt.bootstrap, group, orders) as other:
            until(lambda: len(other.notebook.owned) == 1, member, other)
            (moved,) = other.notebook.owned
            assert len(member.engine.assignment()) == 2
            assert member.notebook.told == []
            other.engine.commit({moved: Position(8, text(8))}, 5.0)
        until(lambda: len(member.engine.assignment()) == 3, member)
        assert member.notebook.told == []
        proxy.fault = None
        until(lambda: len(member.records) == 10 + 10 + 2, member)
        assert member.notebook.owned[moved] == (8, text(8))
        assert [kind for kind, _ in member.notebook.told] == ["assigned"]
        assert member.offsets(*moved) == [8, 9]


def test_a_member_that_goes_before_it_knows_has_nothing_to_say(
    proxy: OffsetFetchProxy, through: str, orders: str, group: str
) -> None:
    proxy.fault = NOT_COORDINATOR
    member = Member(through, group, orders)
    until(lambda: len(member.engine.assignment()) == 3, member)
    began = time.monotonic()
    member.close(Seat.LEAVE)
    assert time.monotonic() - began < 5
    assert member.notebook.told == []


def test_a_coordinator_that_will_not_tell_ends_the_worker(
    proxy: OffsetFetchProxy, through: str, orders: str, group: str
) -> None:
    proxy.fault = GROUP_AUTHORIZATION_FAILED
    with Member(through, group, orders) as member, pytest.raises(AuthorizationFailed) as error:
        until(lambda: False, member)
    assert f"READ on Group:{group}" in str(error.value)
    assert member.notebook.told == []


def test_a_topic_made_again_begins_anew(spoilt: Broker, orders: str, group: str) -> None:
    admin = Admin(spoilt.bootstrap)
    with Member(spoilt.bootstrap, group, orders, metadata_refresh=0.2) as member:
        until(lambda: len(member.records) == 30, member)
        owned = frozenset(member.notebook.owned)
        member.notebook.finished = {Partition(orders, 0): Position(9, text(9))}
        member.records.clear()
        admin.delete_topic(orders)
        admin.create_topic(orders, 3)
        Stream(spoilt.bootstrap, orders, 3, rate=0).send(60)
        until(lambda: len(member.records) >= 60, member)
        for _ in range(5):
            member.poll()
        # However the news came (ids that changed, or a rebalance that saw the topic gone).
        gone = [p for kind, p in member.notebook.told if kind in ("lost", "revoked")]
        assert frozenset().union(*gone) == owned
        assert set(member.notebook.owned.values()) == {None}
        for number in range(3):
            assert member.offsets(orders, number) == [*range(20)]
