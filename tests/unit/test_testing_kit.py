"""The test kit as its users see it: records in, virtual time, what happens to a service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from penstock import (
    App,
    Batch,
    Breaker,
    ConfigError,
    Exit,
    HandlerTimeout,
    Poison,
    Record,
    Retry,
    dead_letter,
    offset_map,
    skip,
    stop,
)
from penstock.breaker import BreakerState
from penstock.errors import Undecodable
from penstock.letters import origin
from penstock.offset_map import SPAN
from penstock.offsets import Position
from penstock.policy import Last
from penstock.record import Partition
from penstock.testing import EPOCH, Kit, KitError, Try
from penstock.testing.world import World

DEAD = dead_letter("orders.dead")


def kit_of(handler: Callable[..., Any], *topics: str, **options: Any) -> Kit:
    """A kit for one handler; ``seed`` and ``settings`` are the kit's, the rest is the app's."""
    seed, settings = options.pop("seed", None), options.pop("settings", {})
    app = App()
    names = topics or (() if "pattern" in options else ("orders",))
    app.subscribe(*names, **{"group": "billing", **options})(handler)
    return Kit(app, seed=seed, **settings)


def send(kit: Kit, *values: str, partition: int = 0) -> list[Record]:
    """Records with these values; a letter in front of a digit is the key (``a1``)."""
    return [kit.send("orders", v.encode(), key=v[:1].encode(), partition=partition) for v in values]


def fine(record: Record) -> None:
    """Nothing to object to."""


def text(records: list[Record]) -> list[str]:
    return [(r.value or b"").decode() for r in records]


class Fails:
    """A handler that raises for each value as often as it is told to."""

    def __init__(self, error: BaseException | None = None, **times: int) -> None:
        self.times = times
        self.error = error or ValueError("not today")

    def __call__(self, record: Record) -> None:
        name = (record.value or b"").decode()
        if self.times.get(name, 0):
            self.times[name] -= 1
            raise self.error


# -- the ordinary way ------------------------------------------------------------------


def test_records_are_handled_in_order_and_committed() -> None:
    kit = kit_of(fine)
    first = kit.send("orders", b"1", key=b"k", headers=[("trace", b"7")])
    second = kit.send("orders", None, partition=3)
    assert (first.offset, first.timestamp, first.headers) == (0, EPOCH * 1000, (("trace", b"7"),))
    assert (kit.committed(0), kit.committed(1)) == (0, None)
    kit.run()
    assert kit.handled == kit.sent == [first, second]
    assert (kit.committed(0), kit.committed(3)) == (1, 1)
    assert (kit.now, kit.counts["done"], kit.failures) == (0.0, 2, [])
    third = kit.send("orders", b"3")
    kit.run()
    assert kit.handled[-1] == third


def test_offsets_may_have_gaps() -> None:
    kit = kit_of(fine, order_by="none")
    assert [kit.send("orders", b"", offset=n).offset for n in (4, 9)] == [4, 9]
    kit.run()
    assert kit.committed() == 10
    with pytest.raises(KitError, match="orders\\[0\\] has come to 10"):
        kit.send("orders", b"", offset=9)


def test_a_value_is_decoded_as_in_a_service() -> None:
    class Order(BaseModel):
        number: int

    seen: list[tuple[int, int]] = []

    def bill(order: Order, record: Record) -> None:
        seen.append((order.number, record.offset))

    bill.__annotations__ = {"order": Order, "record": Record}
    kit = kit_of(bill, then=DEAD)
    kit.send_json("orders", Order(number=7))
    kit.send_json("orders", {"number": "many"})
    kit.send("orders", b"{")
    kit.run()
    assert seen == [(7, 0)]
    letters = kit.dead_letters()
    assert [origin(r.headers).error for r in letters] == ["Undecodable"] * 2  # type: ignore[union-attr] # ours
    assert kit.failures[0].at == 0.0


def test_settings_are_the_kits_and_the_environment_is_not_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PENSTOCK_RETRY_FIRST", "20")
    monkeypatch.setenv("PENSTOCK_NO_SUCH", "1")
    kit = kit_of(Fails(a=1), settings={"retry_first": 3.0})
    send(kit, "a")
    kit.run()
    assert kit.now == 3.0
    with pytest.raises(ConfigError, match="no_such"):
        kit_of(fine, settings={"no_such": 1})


# -- failures --------------------------------------------------------------------------


def test_an_hour_of_back_off_is_over_at_once_and_exact() -> None:
    kit = kit_of(Fails(bad=12), retry=Retry(first=1.0, limit=600.0))
    bad, after = send(kit, "bad", "after")
    began = time.monotonic()
    kit.run()
    assert time.monotonic() - began < 5
    assert [t.at for t in kit.tries[:5]] == [0, 1, 3, 7, 15]
    assert kit.now == sum([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600])
    assert kit.handled == [bad, after]
    assert (kit.attempts(bad), kit.attempts(after)) == (13, 1)
    assert kit.counts["retried"] == 12


def test_delays_have_jitter_with_a_seed_and_the_same_seed_gives_the_same() -> None:
    def run(seed: int) -> float:
        kit = kit_of(Fails(bad=6), seed=seed)
        send(kit, "bad")
        kit.run()
        return kit.now

    assert run(1) == run(1) != run(2)
    assert all(0.8 * 31.5 <= run(seed) <= 31.5 for seed in range(5))


def test_a_record_that_waits_holds_nothing_but_its_own_partition() -> None:
    kit = kit_of(Fails(bad=1))
    send(kit, "bad", "behind")
    send(kit, "elsewhere", partition=1)
    kit.run(until=lambda: bool(kit.handled))
    assert (text(kit.handled), kit.now, kit.retrying) == (["elsewhere"], 0.0, 1)
    kit.run()
    assert text(kit.handled) == ["elsewhere", "bad", "behind"]


def test_given_up_on_a_record_is_in_the_dead_letters_as_on_the_wire() -> None:
    kit = kit_of(Fails(bad=9), retry=Retry(attempts=3), then=DEAD)
    bad = kit.send("orders", b"bad", key=b"k", headers=[("trace", None)], partition=2)
    kit.run()
    [letter] = kit.dead_letters("orders.dead")
    assert (letter.topic, letter.key, letter.value) == ("orders.dead", b"k", b"bad")
    assert letter.headers[0] == ("trace", None)
    assert dict(letter.headers)["penstock.dlq.attempts"] == b"3"
    found = origin(letter.headers)
    assert found is not None
    assert (str(found), found.reason, found.group) == (str(bad), "not today", "billing")
    assert found.at == EPOCH + 1.5
    assert "not today" in found.traceback
    assert (kit.committed(2), kit.handled, kit.counts["dead_lettered"]) == (1, [], 1)


def test_a_record_is_not_committed_before_its_dead_letter_is_taken() -> None:
    kit = kit_of(Fails(bad=9), retry=Retry(attempts=1), then=DEAD)
    send(kit, "good", "bad", "after")
    kit.refuse_letters(times=3)
    kit.advance(1.2)
    kit.commit()
    assert (kit.committed(), len(kit.dead_letters()), kit.retrying) == (1, 0, 1)
    kit.run()
    assert kit.committed() == 3
    assert (kit.now, text(kit.dead_letters())) == (0.5 + 1 + 2, ["bad"])


def test_letters_are_refused_until_they_are_not() -> None:
    kit = kit_of(Fails(bad=9), retry=Retry(attempts=1), then=DEAD)
    send(kit, "bad")
    kit.refuse_letters()
    kit.advance(3600)
    assert kit.dead_letters() == []
    kit.refuse_letters(0)
    kit.run()
    assert text(kit.dead_letters()) == ["bad"]


def test_the_attempts_of_one_record_are_not_the_next_ones() -> None:
    kit = kit_of(Fails(a=2, b=2), retry=Retry(attempts=3), then=DEAD)
    send(kit, "a", "b")
    kit.run()
    assert (kit.dead_letters(), text(kit.handled)) == ([], ["a", "b"])


def test_skip_and_poison() -> None:
    kit = kit_of(Fails(Poison("never"), bad=9), then=skip())
    bad, _ = send(kit, "bad", "good")
    kit.run()
    assert kit.skipped == [bad]
    assert (kit.attempts(bad), kit.committed(), kit.now) == (1, 2, 0.0)


def test_stop_ends_the_service_and_a_restart_tries_again() -> None:
    kit = kit_of(Fails(bad=3), retry=Retry(attempts=2))
    send(kit, "good", "bad", "after")
    kit.run()
    assert str(kit.stopped).startswith("orders[0]@1: ValueError: not today after 2 attempts")
    assert (text(kit.handled), kit.committed()) == (["good"], 1)
    with pytest.raises(KitError, match="the service has ended"):
        kit.run()
    assert kit.restart() is Exit.CRASHED
    kit.run()
    assert (kit.stopped, kit.committed(), kit.repeated) == (None, 3, [])


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_is_no_exception_ends_the_service(asynchronous: bool) -> None:
    def leave(_record: Record) -> None:
        raise SystemExit(3)

    async def leave_later(record: Record) -> None:
        await asyncio.sleep(1)
        leave(record)

    kit = kit_of(leave_later if asynchronous else leave)
    send(kit, "a")
    kit.run()
    assert kit.stopped == "a handler raised SystemExit: 3"


def test_a_failing_test_within_a_handler_is_not_taken_for_a_failing_handler() -> None:
    def check(_record: Record) -> None:
        pytest.fail("as if by the test")

    kit = kit_of(check)
    send(kit, "a")
    with pytest.raises(pytest.fail.Exception, match="as if by the test"):
        kit.run()


def test_a_database_that_is_down_opens_the_breaker_instead_of_filling_the_dead_letters() -> None:
    down_until = 100.0

    def handle(_record: Record) -> None:
        if kit.now < down_until:
            raise ConnectionError("down")

    kit = kit_of(
        handle,
        order_by="none",
        retry=Retry(attempts=3, first=1.0),
        then=DEAD,
        breaker=Breaker(window=10, pause=5.0, limit=40.0),
    )
    send(kit, *(f"a{n}" for n in range(50)))
    assert kit.breaker is BreakerState.CLOSED
    kit.run(until=lambda: kit.breaker is BreakerState.OPEN)
    assert len(kit.tries) == 10
    kit.run()
    assert kit.breaker is BreakerState.CLOSED
    probes = [t.at for t in kit.tries[10:] if t.error]
    assert probes == [5.0, 15.0, 35.0, 75.0]
    assert (kit.dead_letters(), len(kit.handled), kit.now) == ([], 50, 115.0)


def test_what_is_in_flight_when_the_breaker_opens_is_spared() -> None:
    async def handle(_record: Record) -> None:
        await asyncio.sleep(1)
        if kit.now < 5:
            raise ConnectionError("down")

    kit = kit_of(
        handle,
        order_by="none",
        concurrency=30,
        retry=Retry(attempts=1),
        then=DEAD,
        breaker=Breaker(window=10, share=1.0, pause=5.0),
    )
    send(kit, *["a"] * 30)
    kit.run()
    assert (len(kit.dead_letters()), len(kit.handled)) == (9, 21)  # the tenth opened it


# -- order, concurrency, time ----------------------------------------------------------


def test_nobody_reads_his_own_dead_letters() -> None:
    with pytest.raises(ConfigError, match="to read them again"):
        kit_of(fine, then=DEAD, pattern=r"orders\..*")
    with pytest.raises(ConfigError, match="to read them again"):
        kit_of(fine, "orders", "orders.dead", then=DEAD)
    kit_of(fine, then=DEAD, pattern=r"orders\.\d+")


class Running:
    """An asynchronous handler that takes the seconds its value says, and watches itself."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.keys: list[bytes | None] = []

    async def __call__(self, record: Record) -> None:
        assert record.key not in self.keys
        self.keys.append(record.key)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(int((record.value or b"x1")[1:]))
        finally:
            self.keys.remove(record.key)
            self.now -= 1


def test_coroutines_overlap_up_to_the_concurrency_and_never_two_of_a_key() -> None:
    running = Running()
    kit = kit_of(running, order_by="key", concurrency=3)
    send(kit, "a4", "a1", "b2", "c9", "d1", "b1")
    kit.run(until=lambda: len(kit.in_flight) == 3)
    assert text(kit.in_flight) == ["a4", "b2", "c9"]
    kit.run()
    assert running.most == 3
    assert text(kit.handled) == ["b2", "b1", "a4", "d1", "a1", "c9"]
    assert kit.now == 9.0


def test_a_hot_key_lets_others_go_first_now_and_then() -> None:
    kit = kit_of(fine, order_by="key")
    send(kit, *["hot"] * 40, "b", "c")
    kit.run()
    assert text(kit.handled) == ["hot"] * 16 + ["b", "c"] + ["hot"] * 24


def test_back_pressure_bounds_what_is_fetched() -> None:
    most = 0

    def handle(_record: Record) -> None:
        nonlocal most
        most = max(most, kit.waiting)

    kit = kit_of(handle, settings={"buffer_records": 20, "max_poll_records": 5})
    for number in range(300):
        kit.send("orders", b"", partition=number % 3)
    kit.run()
    assert 20 <= most <= 25
    assert len(kit.handled) == 300


def test_a_group_that_starts_at_the_end_misses_nothing_that_came_after() -> None:
    """It commits where it begins before the first record: a crash begins there again."""
    kit = kit_of(fine, settings={"auto_offset_reset": "latest"})
    send(kit, "a")
    kit.crash()
    send(kit, "b")
    kit.run()
    assert text(kit.handled) == ["a", "b"]


def test_a_seed_shuffles_what_is_not_promised_and_keeps_what_is() -> None:
    def run(seed: int) -> list[str]:
        kit = kit_of(fine, order_by="key", seed=seed)
        send(kit, *(f"{key}{n}" for n in range(3) for key in "abcdef"))
        kit.run()
        return text(kit.handled)

    orders = [run(seed) for seed in range(10)]
    assert run(3) == orders[3]
    assert len({tuple(order) for order in orders}) > 5
    for order in orders:
        for key in "abcdef":
            assert [v for v in order if v[0] == key] == [f"{key}{n}" for n in range(3)]


def test_plain_functions_overlap_in_the_time_they_spend() -> None:
    def handle(record: Record) -> None:
        before = kit.now
        kit.spend(int((record.value or b"x1")[1:]))
        assert kit.now == before + int((record.value or b"x1")[1:])

    kit = kit_of(handle, order_by="none", concurrency=2)
    send(kit, "a5", "b2", "c2", "d9")
    kit.advance(3)
    assert (text(kit.in_flight), text(kit.handled)) == (["a5", "c2"], ["b2"])
    kit.run()
    assert (text(kit.handled), kit.now) == (["b2", "c2", "a5", "d9"], 13.0)


def test_a_coroutine_that_takes_too_long_is_a_timeout() -> None:
    kit = kit_of(Running(), timeout=5.0, retry=Retry(attempts=2), then=DEAD)
    send(kit, "a6", "a4")
    kit.run()
    assert [type(t.error) for t in kit.failures] == [HandlerTimeout] * 2
    assert [t.ended for t in kit.failures] == [5.0, 10.5]
    assert text(kit.handled) == ["a4"]


def test_a_plain_function_that_spends_too_much_is_a_timeout_at_that_moment() -> None:
    after: list[bytes | None] = []

    def handle(record: Record) -> None:
        try:
            kit.spend(6 if record.value == b"a6" else 5)
        except Exception:  # a limit must not be caught by the handler
            pytest.fail("caught")
        after.append(record.value)

    kit = kit_of(handle, timeout=5.0, retry=Retry(attempts=1), then=skip())
    slow, _ = send(kit, "a6", "a5")
    kit.run()
    assert (after, kit.skipped, kit.now) == ([b"a5"], [slow], 10.0)
    assert isinstance(kit.failures[0].error, HandlerTimeout)


def test_what_goes_to_a_thread_is_done_at_once() -> None:
    async def handle(record: Record) -> None:
        assert await asyncio.to_thread(lambda: record.value) == b"a"
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)

    kit = kit_of(handle)
    send(kit, "a")
    kit.run()
    assert text(kit.handled) == ["a"]


def test_a_coroutine_that_cancels_itself_has_failed() -> None:
    async def handle(_record: Record) -> None:
        raise asyncio.CancelledError

    kit = kit_of(handle, retry=Retry(attempts=1), then=skip())
    send(kit, "a")
    kit.run()
    assert [str(t.error) for t in kit.failures] == ["the handler was cancelled from within"]
    assert len(kit.skipped) == 1


def test_the_outside_world_is_refused_aloud() -> None:
    async def handle(_record: Record) -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    kit = kit_of(handle)
    send(kit, "a")
    with pytest.raises(KitError, match="outside world"):
        kit.run()


# -- batches ---------------------------------------------------------------------------


def test_batches_are_as_large_as_asked_for() -> None:
    def load(records: list[Record]) -> None:
        assert all(r.partition == records[0].partition for r in records)

    kit = kit_of(load, batch=Batch(count=3))
    send(kit, "a", "b", "c", "d")
    send(kit, "e", partition=1)
    kit.run()
    assert sorted(map(len, kit.batches)) == [1, 1, 3]
    assert (kit.committed(0), kit.committed(1)) == (4, 1)


def test_a_batch_waits_until_it_is_full_or_old_enough() -> None:
    def load(records: list[Record]) -> None: ...

    kit = kit_of(load, batch=Batch(count=3, wait=10.0))
    send(kit, "a")
    kit.advance(4)
    send(kit, "b")
    assert kit.batches == []
    kit.run()
    assert (kit.now, [text(b) for b in kit.batches]) == (10.0, [["a", "b"]])
    send(kit, "c", "d", "e")
    kit.run()
    assert (kit.now, text(kit.batches[-1])) == (10.0, ["c", "d", "e"])


def test_a_batch_is_tried_again_as_it_was_and_then_record_by_record() -> None:
    def load(records: list[Record]) -> None:
        if any(r.value == b"bad" for r in records):
            raise ValueError("not today")

    kit = kit_of(load, batch=Batch(count=3), retry=Retry(attempts=2), then=DEAD)
    send(kit, "a", "bad", "c", "d")
    kit.run()
    tried = [text(list(t.records)) for t in kit.tries]
    assert tried[:2] == [["a", "bad", "c"]] * 2
    assert tried[2:5] == [["a"], ["bad"], ["c"]]
    assert (text(kit.dead_letters()), text(kit.handled)) == (["bad"], ["a", "c", "d"])


# -- what happens to a service ---------------------------------------------------------


def test_a_planned_restart_finishes_what_is_in_flight_and_repeats_nothing() -> None:
    kit = kit_of(Running(), order_by="key", concurrency=2)
    send(kit, "a4", "b1", "a1", "c1", "d1")
    kit.advance(1.5)
    assert text(kit.in_flight) == ["a4", "c1"]
    assert kit.restart() is Exit.RESTART
    assert (kit.now, text(kit.handled)) == (4.0, ["b1", "c1", "a4"])
    assert kit.counts["dropped"] == 2
    kit.run()
    assert (kit.repeated, sorted(text(kit.handled))) == ([], ["a1", "a4", "b1", "c1", "d1"])


def test_a_handler_that_outlasts_the_drain_is_abandoned() -> None:
    kit = kit_of(Running(), settings={"drain_timeout": 10.0})
    send(kit, "a60", "b1")
    kit.advance(1)
    assert kit.restart() is Exit.FORCED
    assert (kit.now, kit.handled, kit.in_flight) == (9.0, [], [])
    kit.run()
    assert text(kit.handled) == ["a60", "b1"]
    assert kit.repeated == []


def test_a_dead_letter_that_waits_is_no_matter_for_a_restart() -> None:
    """As a retry that waits: its record is handled again."""
    kit = kit_of(Fails(bad=9), retry=Retry(attempts=1), then=DEAD)
    [bad] = send(kit, "bad")
    kit.refuse_letters()
    kit.advance(10)
    assert kit.restart() is Exit.RESTART
    kit.refuse_letters(0)
    kit.run()
    assert (text(kit.dead_letters()), kit.attempts(bad), kit.committed()) == (["bad"], 2, 1)


class Closing:
    """Waits for a second; then what it uses was closed by the restart, the first time."""

    def __init__(self) -> None:
        self.tried: list[str] = []

    async def __call__(self, records: list[Record]) -> None:
        self.tried += text(records)
        await asyncio.sleep(1)
        if len(self.tried) <= len(records):
            raise ConnectionError("the client has been closed")


@pytest.mark.parametrize("then", [skip(), stop(), DEAD])
@pytest.mark.parametrize("how", ["restart", "rebalance"])
def test_what_fails_while_it_leaves_is_not_decided(then: Last, how: str) -> None:
    kit = kit_of(Closing(), batch=Batch(count=2), retry=Retry(attempts=1), then=then)
    send(kit, "a", "b")
    kit.run(until=lambda: len(kit.in_flight) == 2)
    if how == "restart":
        assert kit.restart() is Exit.RESTART
    else:
        kit.rebalance()
    assert (kit.stopped, kit.skipped, kit.committed()) == (None, [], 0)
    kit.run()
    assert (text(kit.handled), kit.skipped, kit.committed()) == (["a", "b"], [], 2)
    if then is DEAD:
        assert kit.dead_letters() == []


@pytest.mark.parametrize("then", [skip(), stop(), DEAD])
def test_what_cannot_be_decoded_is_decided_while_it_leaves(then: Last) -> None:
    kit = kit_of(Undecoded(), then=then)
    send(kit, "a")
    kit.run(until=lambda: len(kit.in_flight) == 1)
    assert kit.restart() is (Exit.CRASHED if then == stop() else Exit.RESTART)
    assert kit.committed() == (0 if then == stop() else 1)


class Undecoded:
    """As a model with an asynchronous decoder would: after a second."""

    async def __call__(self, record: Record) -> None:
        await asyncio.sleep(1)
        raise Undecodable(f"{record} is not an Order")


def test_a_crash_repeats_what_was_not_committed() -> None:
    kit = kit_of(fine)
    send(kit, *"abcde")
    kit.run(until=lambda: len(kit.handled) == 2)
    kit.commit()
    kit.run(until=lambda: len(kit.handled) == 4)
    kit.crash()
    kit.run()
    assert text(kit.handled) == ["a", "b", "c", "d", "c", "d", "e"]
    assert text(kit.repeated) == ["c", "d"]


def test_a_crash_in_the_middle_of_a_handler() -> None:
    kit = kit_of(Running())
    [record] = send(kit, "a4")
    kit.advance(1)
    kit.crash()
    assert (kit.in_flight, kit.tries[0].ended) == ([], None)
    kit.run()
    assert (kit.handled, kit.repeated, kit.attempts(record), kit.now) == ([record], [], 2, 5.0)


def test_nobody_survives_a_crash() -> None:
    async def handle(_record: Record) -> None:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            return  # as if done

    kit = kit_of(handle)
    send(kit, "a")
    kit.advance(1)
    kit.crash()
    assert kit.handled == []
    kit.run()
    assert (text(kit.handled), kit.now) == (["a"], 6.0)


def test_commits_come_at_their_interval() -> None:
    kit = kit_of(Running(), settings={"commit_interval": 2.5})
    send(kit, *["a1"] * 6)
    kit.advance(3.4)
    assert kit.committed() == 0
    kit.advance(0.2)
    assert kit.committed() == 3


def test_what_is_finished_beyond_the_commit_is_not_repeated_after_a_crash() -> None:
    kit = kit_of(Running(), order_by="key", concurrency=8, settings={"commit_interval": 1.0})
    send(kit, "a9", "b1", "c1", "d1", "e3")
    kit.advance(2.5)
    assert (kit.committed(), sorted(kit.committed_beyond())) == (0, [1, 2, 3])
    kit.crash()
    kit.run()
    assert (kit.repeated, kit.committed()) == ([], 5)
    assert text(kit.handled) == ["b1", "c1", "d1", "e3", "a9"]


def test_records_wait_before_the_offset_map_could_overflow() -> None:
    async def handle(record: Record) -> None:
        await asyncio.sleep(60 if record.key == b"slow" else 0)

    kit = kit_of(handle, order_by="key", concurrency=4)
    kit.send("orders", b"", key=b"slow")
    for number in range(2 * SPAN):
        kit.send("orders", b"", key=b"%d" % (number % 100))
    kit.send("orders", b"elsewhere", partition=1)
    kit.advance(30)
    assert (kit.committed(0), kit.committed(1)) == (0, 1)
    assert len(kit.committed_beyond(0)) == SPAN - 1
    kit.crash()
    kit.run()
    assert (kit.repeated, kit.committed(0), len(kit.handled)) == ([], 2 * SPAN + 1, 2 * SPAN + 2)


def test_a_rebalance_in_the_middle_of_things_repeats_nothing() -> None:
    kit = kit_of(Running(), order_by="key", concurrency=4)
    send(kit, "a3", "b1", "a1")
    send(kit, "c9", partition=1)
    kit.advance(1.5)
    kit.rebalance(0)
    assert (kit.now, kit.committed(0)) == (3.0, 2)
    kit.rebalance()
    kit.run()
    assert (kit.repeated, len(kit.handled), kit.now) == ([], 4, 9.0)


def test_a_partition_that_moves_while_a_record_waits_is_tried_anew() -> None:
    kit = kit_of(Fails(bad=4), retry=Retry(attempts=3), then=DEAD)
    [bad] = send(kit, "bad")
    kit.run(until=lambda: kit.attempts(bad) == 2)
    kit.rebalance()
    kit.run()
    assert (kit.attempts(bad), kit.handled, kit.dead_letters()) == (5, [bad], [])


def test_a_partition_that_is_taken_away_is_handled_twice_side_by_side() -> None:
    async def handle(_record: Record) -> None:
        await asyncio.sleep(4)

    kit = kit_of(handle)
    send(kit, "a4")
    kit.advance(1)
    kit.rebalance(lost=True)
    kit.advance(1)
    assert text(kit.in_flight) == ["a4", "a4"]
    kit.run()
    assert (text(kit.repeated), kit.counts["lost"], kit.committed()) == (["a4"], 1, 1)


def test_what_was_finished_and_not_committed_is_repeated_when_taken_away() -> None:
    kit = kit_of(fine)
    send(kit, "a", "b")
    kit.run(until=lambda: len(kit.handled) == 1)
    kit.rebalance(lost=True)
    kit.run()
    assert text(kit.handled) == ["a", "a", "b"]


def test_a_handler_that_outlasts_a_revocation_is_repeated_by_the_next_owner() -> None:
    kit = kit_of(Running(), settings={"revoke_timeout": 5.0})
    send(kit, "a9")
    kit.advance(1)
    kit.rebalance()
    assert kit.now == 6.0
    kit.run()
    assert text(kit.repeated) == ["a9"]


def test_a_broken_promise_is_noticed() -> None:
    """The kit is no use if it does not see what it is there to see: forget a commit."""
    kit = kit_of(fine)
    send(kit, "a")
    kit.run()
    kit.commits.clear()
    kit.restart()
    with pytest.raises(KitError, match="fault of Penstock"):
        kit.run()


def test_what_the_metadata_calls_finished_counts_as_committed() -> None:
    world, [record] = World(), [kit_of(fine).send("orders", b"", offset=5)]
    world.finished(record, "done")
    orders = Partition("orders", 0)
    world.topics.commit({orders: Position(3, offset_map.encode(3, [5]))})
    world.forget_uncommitted([orders])
    with pytest.raises(KitError, match="fault of Penstock"):
        world.begins(Try((record,), 0.0))
    world.topics.commit({orders: Position(3)})
    world.forget_uncommitted([orders])
    world.begins(Try((record,), 0.0))


# -- misuse, and tests that would never end --------------------------------------------


def test_a_record_that_never_succeeds_is_named_with_its_error() -> None:
    kit = kit_of(Fails(bad=1_000_000))
    send(kit, "bad")
    with pytest.raises(KitError, match="1 to be tried again; orders\\[0\\]@0 was tried") as caught:
        kit.run(patience=3600)
    assert isinstance(caught.value.__cause__, ValueError)
    assert kit.now < 3600


def test_nor_is_one_that_is_tried_without_pause() -> None:
    kit = kit_of(Fails(bad=1_000_000), retry=Retry(first=0.001, limit=0.001))
    send(kit, "bad")
    with pytest.raises(KitError, match="orders\\[0\\]@0 was tried 10,000 times"):
        kit.run()


def test_a_handler_that_waits_for_what_never_comes_is_named() -> None:
    async def handle(_record: Record) -> None:
        await asyncio.Event().wait()

    kit = kit_of(handle)
    send(kit, "a")
    with pytest.raises(KitError, match="orders\\[0\\]@0 in a handler that waits for what never"):
        kit.run()


def test_a_condition_that_never_comes_true_is_told() -> None:
    kit = kit_of(fine)
    send(kit, "a")
    with pytest.raises(KitError, match=r"until\(\) is still not true"):
        kit.run(until=lambda: len(kit.handled) == 2)
    send(kit, "b")
    with pytest.raises(ZeroDivisionError):
        kit.run(until=lambda: 1 // (2 - len(kit.handled)) == 5)


def app_of_two() -> App:
    app = App()

    @app.subscribe("orders", group="billing")
    def bill(record: Record) -> None: ...

    @app.subscribe(pattern=r"clicks\..*", group="warehouse")
    def load(record: Record) -> None: ...

    return app


def test_of_several_subscriptions_one_is_chosen() -> None:
    app = app_of_two()
    kit = Kit(app, "load")
    kit.send("clicks.eu", b"1")
    kit.send("clicks.us", b"2")
    kit.run()
    assert (len(kit.handled), kit.committed(0, "clicks.us")) == (2, 1)
    with pytest.raises(KitError, match="partition 0 of which topic"):
        kit.committed(0)
    Kit(app, app.subscriptions[0].handler).send("orders", b"1")


MISUSE: dict[str, tuple[Callable[[], object], str]] = {
    "no app": (lambda: Kit("shop:app"), "no penstock.App"),  # type: ignore[arg-type] # that is the test
    "several": (lambda: Kit(app_of_two()), "several handlers: .*bill.*load"),
    "unknown": (lambda: Kit(app_of_two(), "bil"), "no handler bil; it has: .*bill"),
    "another's": (lambda: Kit(app_of_two(), fine), "no handler fine"),
    "none": (lambda: Kit(App()), "it has: none"),
    "topic": (lambda: Kit(app_of_two(), "bill").send("order", b""), "does not read 'order' but o"),
    "pattern": (lambda: Kit(app_of_two(), "load").send("clicks", b""), "does not read 'clicks'"),
    "value": (lambda: kit_of(fine).send("orders", "text"), "bytes.*send_json"),  # type: ignore[arg-type] # that is the test
    "key": (lambda: kit_of(fine).send("orders", b"", key="k"), "key='k': bytes"),  # type: ignore[arg-type] # that is the test
    "letters": (lambda: kit_of(fine).dead_letters("orders.dead"), "nowhere"),
    "letters of": (lambda: kit_of(fine, then=DEAD).dead_letters("dead"), "into 'orders.dead'"),
    "spend": (lambda: kit_of(fine).spend(1), "plain handlers"),
    "back": (lambda: kit_of(fine).advance(-1), "0 or more"),
}


@pytest.mark.parametrize("name", MISUSE)
def test_misuse_is_told_with_the_remedy(name: str) -> None:
    call, said = MISUSE[name]
    with pytest.raises(KitError, match=said):
        call()


def test_what_is_done_to_a_service_is_not_done_from_its_handlers() -> None:
    def handle(_record: Record) -> None:
        kit.restart()

    kit = kit_of(handle)
    send(kit, "a")
    with pytest.raises(KitError, match="from a handler"):
        kit.run()

    async def test() -> None:
        kit_of(fine).run()

    with pytest.raises(KitError, match="use `def`"):
        asyncio.run(test())


def test_the_kit_says_what_happened_where_an_assertion_shows_it() -> None:
    kit = kit_of(Fails(bad=9), retry=Retry(attempts=1))
    send(kit, "a", "bad")
    kit.run()
    assert "2 sent, 1 handled" in repr(kit)
    assert "last failure orders[0]@1: ValueError('not today')" in repr(kit)
    assert "stopped: orders[0]@1" in repr(kit)
