"""What a lane offers to commit."""

from __future__ import annotations

import pytest

from penstock import offset_map
from penstock.app import Order
from penstock.lane import Lane
from penstock.offset_map import Deaths
from penstock.offsets import Position
from penstock.record import Record
from tests.unit.making import orders, records

ZERO = orders(0)
KEYED = [Record("orders", 0, n, 0, b"%d" % n, b"", ()) for n in range(5, 15)]


def take(lane: Lane, *taken: Record) -> None:
    lane.backlog.extend(taken)
    list(lane.spread())


def finish(lane: Lane, *offsets: int) -> None:
    """As a runner does that took them off their strands."""
    for strand in lane.strands.values():
        while strand.waiting and strand.waiting[0].offset in offsets:
            strand.waiting.popleft()
    for offset in offsets:
        lane.done(offset)


@pytest.mark.parametrize("order", Order)
def test_deaths_are_committed_before_anything_is_finished(order: Order) -> None:
    lane = Lane(ZERO, order, Position(5))
    assert lane.position() in (None, Position(5))
    lane.deaths = (Deaths(5, 8, 1), Deaths(6, 6, 2, 1))
    assert lane.position() == Position(5, offset_map.encode(5, (), lane.deaths))
    assert not lane.dirty, "no record of it is finished"


@pytest.mark.parametrize("order", Order)
def test_deaths_are_carried_on_until_their_records_are_finished(order: Order) -> None:
    deaths = (Deaths(5, 5, 1), Deaths(6, 9, 2, 1))
    lane = Lane(ZERO, order, Position(5, offset_map.encode(5, (), deaths)))
    assert lane.deaths == deaths
    take(lane, *(records(0, *range(5, 15)) if order is Order.PARTITION else KEYED))
    assert lane.position() == lane.committed
    finish(lane, 5)
    assert lane.position() == Position(6, offset_map.encode(6, (), deaths[1:]))
    finish(lane, *range(6, 15))
    assert lane.position() == Position(15)


@pytest.mark.parametrize("order", Order)
def test_where_the_client_is_counts_when_nothing_is_unfinished(order: Order) -> None:
    lane = Lane(ZERO, order, Position(5))
    lane.reached = 7  # markers
    assert lane.position() == Position(7)
    assert not lane.dirty
    take(lane, *records(0, 7, 8))
    lane.reached = 11
    assert lane.position() == Position(7)
    finish(lane, 7)
    assert lane.position() == Position(8)
    assert lane.dirty
    finish(lane, 8)
    assert lane.position() == Position(11)
    lane.committed = Position(11)
    assert not lane.dirty
    take(lane, *records(0, 11))
    assert lane.position() == Position(11)  # never lower
    finish(lane, 11)
    assert lane.position() == Position(12)
    assert lane.dirty
    lane.reached = 3  # a log that was cut off
    assert lane.position() == Position(12)


@pytest.mark.parametrize("order", Order)
def test_a_dropped_record_is_not_passed(order: Order) -> None:
    lane = Lane(ZERO, order, Position(5))
    take(lane, *records(0, 5))
    finish(lane, 5)
    lane.cut_at(8)
    lane.cut_at(6)
    lane.reached = 20
    assert lane.position() == Position(6)
    assert lane.lowest() == 6


def test_what_an_earlier_owner_finished_is_kept_until_the_client_is_past_it() -> None:
    said = offset_map.encode(5, {6, 9})
    lane = Lane(ZERO, Order.PARTITION, Position(5, said))
    lane.reached = 5
    assert lane.position() == Position(5, said)
    lane.reached = 8  # 5 to 7 were compacted away
    assert lane.position() == Position(8, offset_map.encode(8, {9}))
    lane.reached = 12
    assert lane.position() == Position(12)
