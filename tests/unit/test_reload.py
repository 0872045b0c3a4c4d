from __future__ import annotations

from typing import Any, cast

import pytest

from penstock.seat import Seat
from penstock.supervisor.child import Child, Hello, Reading
from penstock.supervisor.reload import Reload
from penstock.supervisor.verdict import End
from tests.unit.making import make_settings

pytestmark = pytest.mark.usefixtures("no_log")

CLEAN = End(4, planned=True, reason="")
BROKEN = End(78, planned=False, reason="importing shop failed")


def hello(subscriptions: int = 1) -> Hello:
    reading = Reading("bill", "billing", ("orders",), pattern=False)
    return Hello(make_settings(), concurrency=1, subscriptions=(reading,) * subscriptions)


class FakeChild:
    def __init__(self, index: int, pid: int) -> None:
        self.index, self.pid = index, pid
        self.spawned_at = 0.0
        self.discarded = False
        self.hello: Hello | None = None
        self.joined = self.draining = self.killed = False
        self.seat: str | None = None

    def drain(self, *, restart: bool, seat: str, seconds: float) -> None:
        assert restart
        assert seconds == 25.0
        self.draining, self.seat = True, seat

    def kill(self) -> None:
        self.killed = True

    def discard(self) -> None:
        self.discarded = True


class FakeSupervisor:
    """The few things a reload asks of the service."""

    def __init__(self, workers: int) -> None:
        self.settings = make_settings()
        self.subscriptions = hello().subscriptions
        self.pids = 100
        self.children: dict[int, Any] = {}
        for index in range(workers):
            self.children[index] = self.spawn(index)
            self.children[index].joined = True

    def spawn(self, index: int) -> Any:
        self.pids += 1
        return FakeChild(index, self.pids)

    def seat_in_place(self) -> Seat:
        return Seat.KEEP

    def swap(self, new: Any) -> None:
        assert new.index not in self.children, "its predecessor is still there"
        self.children[new.index] = new


class Scene:
    def __init__(self, workers: int = 1) -> None:
        self.sup = FakeSupervisor(workers)
        self.before = dict(self.sup.children)
        self.reload = Reload(cast(Any, self.sup))
        self.now = 0.0

    def step(self) -> bool:
        return self.reload.step(self.now)

    @property
    def new(self) -> Any:
        replacement: Any = self.reload.replacement
        assert replacement is not None
        return replacement

    def bury(self, child: Any, end: End) -> bool:
        part = self.reload.buried(cast(Child, child), end)
        index = child.index
        if self.sup.children.get(index) is child:
            del self.sup.children[index]
        return part


def test_one_after_another() -> None:
    scene = Scene(workers=3)
    for index in range(3):
        assert not scene.step()
        old, new = scene.before[index], scene.new
        assert not scene.step()
        assert not old.draining  # not before the new one has imported the code
        new.hello = hello()
        assert not scene.step()
        assert (old.draining, old.seat) == (True, "keep")
        assert not any(scene.before[i].draining for i in range(index + 1, 3))
        assert scene.bury(old, CLEAN)
        assert not scene.step()
        assert scene.sup.children[index] is new
        assert not scene.step()
        assert scene.reload.replacement is None  # not before this one has joined
        new.joined = True
    assert scene.step()


def test_new_code_that_does_not_import_leaves_the_old_one_alone() -> None:
    scene = Scene(workers=2)
    scene.step()
    assert scene.bury(scene.new, BROKEN)
    assert scene.step()
    assert scene.sup.children == scene.before
    assert not any(child.draining for child in scene.before.values())


def test_an_old_worker_that_does_not_drain_in_time_is_ended_once() -> None:
    scene = Scene()
    scene.step()
    scene.new.hello = hello()
    scene.step()
    old = scene.before[0]
    scene.now = 24.9
    scene.step()
    assert not old.killed
    scene.now = 25.0
    scene.step()
    assert old.killed
    assert scene.bury(old, End(2, planned=False, reason="the drain deadline passed"))
    scene.step()
    assert scene.reload.replacement is None


def test_an_old_worker_that_dies_by_itself_is_a_failure() -> None:
    scene = Scene()
    scene.step()
    assert not scene.bury(scene.before[0], End(137, planned=False, reason="died"))


@pytest.mark.parametrize("old_first", [True, False])
def test_a_replacement_that_ends_is_not_waited_for(old_first: bool) -> None:
    """A stop drains both; whichever ends first, nothing of the reload is left over."""
    scene = Scene()
    scene.step()
    new, old = scene.new, scene.before[0]
    new.hello = hello()
    scene.step()
    if old_first:
        assert scene.bury(old, CLEAN)
    assert not scene.bury(new, CLEAN)
    if not old_first:
        assert scene.bury(old, CLEAN)
    assert scene.reload.replacement is None


def test_a_stranger_s_end_is_none_of_its_business() -> None:
    scene = Scene(workers=2)
    scene.step()
    assert not scene.bury(scene.before[1], End(1, planned=False, reason="x"))


def test_a_replacement_that_never_comes_up_is_given_up() -> None:
    scene = Scene()
    scene.step()
    scene.now = 121.0
    assert not scene.step()
    assert scene.new.discarded
    assert scene.bury(scene.new, CLEAN)
    assert scene.step()
    assert not scene.before[0].draining


def test_another_number_of_subscriptions_is_refused() -> None:
    scene = Scene(workers=2)
    scene.step()
    scene.new.hello = hello(subscriptions=2)
    assert not scene.step()
    assert scene.new.discarded
    assert not scene.step()
    assert scene.bury(scene.new, CLEAN)
    assert scene.step()
    assert not any(child.draining for child in scene.before.values())
