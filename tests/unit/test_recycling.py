"""Planned replacements in the real supervisor, in a world where memory is what the test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from penstock.cgroup import ProcessMemory, Reading
from penstock.memory import MB
from tests.unit.supervising import World

LIMIT = 1_000 * MB
STATIC = {"workers": 2, "instance_id": "a", "memory_interval": 60.0}


@pytest.fixture
def make() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(values: dict[str, Any] = STATIC) -> World:
        world = World(first=2)
        made.append(world)
        world.host.reading = Reading(LIMIT, 500 * MB)
        world.run_up(values)
        world.host.now += 1_000
        for process in world.alive():
            process.status()
        fill(world, 500, 300, 200)
        return world

    yield make
    for world in made:
        world.close()


def fill(world: World, working_set: int, *held: int) -> None:
    """So many MB in all, and in each worker."""
    world.host.reading = Reading(LIMIT, working_set * MB)
    workers = world.sup.slots.workers()
    world.host.weights = {
        child.pid: ProcessMemory((mb + 10) * MB, mb * MB)
        for child, mb in zip(workers, held, strict=True)
    }
    world.pass_time(1.0)


def test_the_largest_goes_first_and_then_its_successor_comes(make: Callable[..., World]) -> None:
    world = make()
    with structlog.testing.capture_logs() as logs:
        fill(world, 890, 500, 300)
        assert len(world.processes) == 2
        fill(world, 910, 300, 500)
    old = world.processes[1]
    assert old.told("drain")[-1]["seat"] == "keep"
    assert not world.processes[0].told("drain")
    (said,) = [line for line in logs if line["event"].startswith("replacing the largest")]
    assert (said["worker"], said["pid"], said["private"]) == (1, old.pid, 500 * MB)
    assert (said["working_set"], said["limit"]) == (910 * MB, LIMIT)
    assert len(world.processes) == 2, "no room for two"
    old.leave()
    world.turn()
    new = world.processes[2]
    new.hello(STATIC)
    world.turn()
    assert new.told("start")
    assert world.sup.replacing.busy
    new.status()
    world.turn()
    assert not world.sup.replacing.busy
    assert [w.pid for w in world.sup.slots.workers()] == [world.processes[0].pid, new.pid]
    assert b'penstock_worker_recycles_total{reason="memory"} 1.0' in world.sup.view.metrics("")[0]
    assert world.sup.worker_exits == {("4", "RESTART", True): 1}
    # The other one is the largest now; it is its turn when the interval is over.
    fill(world, 950, 400, 70)
    assert not world.processes[0].told("drain")
    world.host.now += 60
    fill(world, 950, 400, 70)
    assert world.processes[0].told("drain")


@pytest.mark.parametrize("high", [0.0, 0.95])
def test_below_the_mark_nothing_happens(make: Callable[..., World], high: float) -> None:
    world = make({**STATIC, "memory_high": high})
    fill(world, 940, 500, 300)
    assert not world.sup.replacing.busy


def test_not_while_something_else_goes_on(make: Callable[..., World]) -> None:
    world = make()
    world.sup.replace(0, "a test")
    fill(world, 950, 500, 300)
    assert not world.processes[1].told("drain")
    world.sup.fail(1, "a test")
    world.turn()
    fill(world, 950, 500, 300)
    assert world.sup.recycling.counts == {}


def test_that_it_would_not_help_is_said_once(make: Callable[..., World]) -> None:
    world = make()
    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            fill(world, 950, 75, 70)
    (said,) = [line for line in logs if "would not help" in line["event"]]
    assert "something else fills the memory" in said["reason"]
    assert not world.sup.replacing.busy


def test_a_successor_that_does_not_come_up_ends_the_service(make: Callable[..., World]) -> None:
    """Nothing stands by: a slot must not stay empty for ever."""
    world = make()
    fill(world, 950, 500, 300)
    world.processes[0].leave()
    world.turn()
    world.host.now += 200
    world.turn()
    assert world.sup.lifecycle.ending
    assert world.ends_by_itself() == 1
    assert "did not come up in 120 s" in world.host.records[-1].reason


def test_no_process_can_be_started(make: Callable[..., World]) -> None:
    world = make()
    fill(world, 950, 500, 300)
    world.host.full = True
    world.processes[0].leave()
    world.turn()
    assert world.ends_by_itself() == 1
    assert "no process could be started" in world.host.records[-1].reason


def test_an_unclean_end_is_the_services(make: Callable[..., World]) -> None:
    world = make()
    fill(world, 950, 500, 300)
    world.processes[0].end(-9)
    world.turn()
    assert world.ends_by_itself() == 137


def test_a_stop_meanwhile(make: Callable[..., World]) -> None:
    world = make()
    fill(world, 950, 500, 300)
    world.send(15)
    assert world.processes[0].told("drain")[-1]["seat"] == "leave"
    assert world.ends_by_itself() == 0
    assert len(world.processes) == 2


def test_a_limit_that_cannot_be_enough_is_told_at_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(first=2)
    try:
        world.host.reading = Reading(200 * MB, 50 * MB)
        world.run_up(STATIC)
        assert "= 446 MB, and the limit is 200 MB" in caplog.text
    finally:
        world.close()
