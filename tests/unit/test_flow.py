from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.flow import Flow, weight
from penstock.record import Partition, Record
from tests.unit.making import orders

PARTITIONS = [orders(n) for n in range(4)]
partitions = st.sampled_from(PARTITIONS)


class Client:
    """What a Kafka client does with pauses: a partition that comes is not paused."""

    def __init__(self) -> None:
        self.paused: set[Partition] = set()

    def apply(self, flow: Flow) -> None:
        pause, resume = flow.changes()
        assert not set(pause) & set(resume)
        self.paused.update(pause)
        self.paused.difference_update(resume)


class FlowMachine(RuleBasedStateMachine):
    """The definition beside the bookkeeping: what waits, and the reasons to pause."""

    @initialize(total=st.integers(1, 60), batch=st.integers(1, 20), size=st.integers(1, 400))
    def begin(self, total: int, batch: int, size: int) -> None:
        self.flow = Flow(total=total, batch=batch, size=size)
        self.total, self.batch, self.size = max(total, batch), batch, size
        self.client = Client()
        #: The sizes of the records that wait.
        self.waiting: dict[Partition, list[int]] = {}
        self.held: set[Partition] = set()
        self.over: set[Partition] = set()
        self.everything = False

    def parts(self) -> int:
        return max(1, min(4, len(self.waiting)))

    def share(self) -> int:
        return max(2 * self.batch, self.total // self.parts())

    def counts(self) -> tuple[int, int]:
        sizes = [size for waiting in self.waiting.values() for size in waiting]
        return len(sizes), sum(sizes)

    @rule(partition=partitions)
    def own(self, partition: Partition) -> None:
        if partition not in self.waiting:
            self.flow.own(partition)
            self.waiting[partition] = []
            self.client.paused.discard(partition)

    @rule(partition=partitions)
    def disown(self, partition: Partition) -> None:
        self.flow.disown(partition)
        self.waiting.pop(partition, None)
        self.held.discard(partition)
        self.over.discard(partition)

    @rule(partition=partitions)
    def gone_and_back_before_anybody_looked(self, partition: Partition) -> None:
        """Whatever the client was told for the old ownership may hit the new one."""
        if partition in self.waiting:
            stale = partition in self.client.paused
            self.disown(partition)
            self.own(partition)
            if stale:
                self.client.paused.add(partition)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def add(self, data: st.DataObject) -> None:
        partition = data.draw(st.sampled_from(sorted(self.waiting)))
        sizes = data.draw(st.lists(st.integers(0, 60), min_size=1, max_size=self.batch))
        self.flow.add(partition, len(sizes), sum(sizes))
        waiting = self.waiting[partition]
        waiting += sizes
        if len(waiting) >= self.share() or sum(waiting) >= self.size // self.parts():
            self.over.add(partition)

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        partition = data.draw(st.sampled_from(sorted(p for p, n in self.waiting.items() if n)))
        waiting = self.waiting[partition]
        count = data.draw(st.integers(1, len(waiting)))
        self.flow.take(partition, count, sum(waiting[:count]))
        del waiting[:count]
        share, size = self.share() // 2, self.size // self.parts() // 2
        if len(waiting) <= share and sum(waiting) <= size:
            self.over.discard(partition)

    @rule(partition=partitions)
    def take_of_what_went(self, partition: Partition) -> None:
        if partition not in self.waiting:
            self.flow.take(partition, 5, 50)

    @rule(partition=partitions)
    def hold(self, partition: Partition) -> None:
        self.flow.hold(partition)
        if partition in self.waiting:
            self.held.add(partition)

    @rule(partition=partitions)
    def release(self, partition: Partition) -> None:
        self.flow.release(partition)
        self.held.discard(partition)

    @rule()
    def look(self) -> None:
        waiting, size = self.counts()
        if self.everything:
            self.everything = waiting > self.total * 0.75 or size > self.size * 0.75
        else:
            self.everything = waiting >= self.total or size >= self.size
        self.client.apply(self.flow)
        assert self.flow.saturated == self.everything
        wanted = set(self.waiting) if self.everything else self.held | self.over
        assert self.client.paused & set(self.waiting) == wanted
        assert self.flow.changes() == ((), ())  # nothing changed since
        for partition in self.waiting:
            if not waiting and partition not in self.held:
                assert partition not in self.client.paused, "nobody would ever resume it"

    @invariant()
    def counts_are_what_waits(self) -> None:
        assert (self.flow.waiting, self.flow.bytes) == self.counts()

    def teardown(self) -> None:
        """Whatever happened: once all is taken and no retry waits, everything flows."""
        if not hasattr(self, "flow"):
            return
        for partition, waiting in self.waiting.items():
            self.flow.release(partition)
            if waiting:
                self.flow.take(partition, len(waiting), sum(waiting))
        self.client.apply(self.flow)
        assert not self.client.paused & set(self.waiting)
        assert not self.flow.saturated


TestFlow = FlowMachine.TestCase
TestFlow.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


def test_the_hysteresis_of_one_partition() -> None:
    flow = Flow(total=100, batch=10, size=10_000)
    one, two = orders(0), orders(1)
    flow.own(one)
    flow.own(two)
    flow.changes()
    flow.add(one, 49, 0)
    assert flow.changes() == ((), ())
    flow.add(one, 1, 0)  # its share of two partitions
    assert flow.changes() == ([one], [])
    flow.take(one, 24, 0)
    assert flow.changes() == ((), ())
    flow.take(one, 1, 0)
    assert flow.changes() == ([], [one])


def test_the_hysteresis_of_everything() -> None:
    flow = Flow(total=8, batch=8, size=10_000)
    one, two = orders(0), orders(1)
    flow.own(one)
    flow.own(two)
    flow.changes()
    flow.add(one, 4, 0)
    flow.add(two, 4, 0)
    assert set(flow.changes()[0]) == {one, two}
    assert flow.saturated
    flow.take(one, 1, 0)
    assert flow.changes() == ((), ())
    flow.take(two, 1, 0)  # 6 of 8
    assert set(flow.changes()[1]) == {one, two}
    assert not flow.saturated


def test_the_hysteresis_of_one_partition_in_bytes() -> None:
    flow = Flow(total=1_000, batch=10, size=1_000)
    one, two = orders(0), orders(1)
    flow.own(one)
    flow.own(two)
    flow.changes()
    flow.add(one, 1, 499)
    assert flow.changes() == ((), ())
    flow.add(one, 1, 1)  # its share of two partitions
    assert flow.changes() == ([one], [])
    flow.take(one, 1, 249)
    assert flow.changes() == ((), ())
    flow.take(one, 1, 1)
    assert flow.changes() == ([], [one])


def test_the_hysteresis_of_everything_in_bytes() -> None:
    flow = Flow(total=1_000, batch=10, size=1_000)
    one, two = orders(0), orders(1)
    flow.own(one)
    flow.own(two)
    flow.changes()
    flow.add(one, 1, 400)
    flow.add(two, 1, 600)
    assert set(flow.changes()[0]) == {one, two}
    assert flow.saturated
    flow.take(one, 1, 249)
    assert flow.changes() == ((), ())
    flow.take(one, 0, 1)  # three quarters
    pause, resume = flow.changes()
    assert (pause, resume) == ([], [one])  # the other has more than its share
    assert not flow.saturated


def test_one_record_larger_than_everything_is_let_through_and_stops_the_rest() -> None:
    flow = Flow(total=100, batch=10, size=1_000)
    one = orders(0)
    flow.own(one)
    flow.changes()
    flow.add(one, 1, 5_000)
    assert flow.changes() == ([one], [])
    flow.take(one, 1, 5_000)
    assert flow.changes() == ([], [one])


def test_what_waits_is_weighed_with_its_headers_and_what_keeps_it() -> None:
    """A record without a byte is not free, and a large header is no way around the bound."""
    plain = Record("orders", 0, 1, 0, b"key", b"value", ())
    tombstone = Record("orders", 0, 2, 0, b"key", None, [])
    headed = Record("orders", 0, 3, 0, None, b"v", [("trace", b"x" * 5_000), ("empty", None)])
    assert weight([]) == 0
    assert weight([plain]) == 1_000 + 8
    assert weight([tombstone]) == 1_000 + 3
    assert weight([headed]) == 1_000 + 1 + 5 + 5_000 + 5
    assert weight([plain, tombstone, headed]) == sum(
        weight([r]) for r in (plain, tombstone, headed)
    )


def test_a_poll_brings_about_as_many_bytes_as_it_may() -> None:
    """A thousand small ones, or a few large ones; never none, and few as long as it is unknown."""
    flow = Flow(total=8_000, batch=500, size=64_000_000, poll=8_000_000)
    assert flow.limit == 50
    flow.own(PARTITIONS[0])
    for _ in range(40):
        flow.add(PARTITIONS[0], 500, 500 * 1_100)
    assert flow.limit == 500
    for _ in range(40):
        flow.add(PARTITIONS[0], 8, 8 * 1_000_000)
    assert flow.limit == 8
    flow.add(PARTITIONS[0], 1, 1_000_000_000)
    assert flow.limit == 2
    for _ in range(80):
        flow.add(PARTITIONS[0], 1, 0)
    assert flow.limit == 500
    assert Flow(total=8, batch=8, size=1_000).limit == 8
