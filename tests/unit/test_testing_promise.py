"""The promise, tried with the kit: whatever happens to a service, in whatever order."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import App, Batch, Exit, Record, Retry, dead_letter
from penstock.testing import Kit

KEYS, PARTITIONS = 4, 3

#: What happens, and to which partition or for how many seconds.
happening = st.tuples(
    st.sampled_from(
        [*["send"] * 3, *["advance"] * 3, "restart", "rebalance", "commit", "crash", "lost"]
    ),
    st.integers(0, 9),
)


def make(order_by: str, kind: str, concurrency: int, seed: int) -> Kit:
    """Each record takes up to two seconds and fails up to twice; one in ten always fails."""
    app = App()
    random = Random(seed)
    fails: dict[tuple[int, int], int] = {}

    async def one(record: Record) -> None:
        at = (record.partition, record.offset)
        fails.setdefault(at, 99 if at[1] % 10 == 9 else random.choice((0, 0, 0, 1, 2)))
        await asyncio.sleep(random.choice((0, 0.1, 2)))
        if fails[at]:
            fails[at] -= 1
            raise ValueError(at)

    async def many(records: list[Record]) -> None:
        await asyncio.sleep(random.choice((0, 0.1, 2)))
        if any(r.offset % 10 == 9 for r in records):
            raise ValueError("one of them")

    app.subscribe(
        "orders",
        group="billing",
        order_by="partition" if kind == "batch" else order_by,
        concurrency=concurrency,
        retry=Retry(attempts=3),
        then=dead_letter("orders.dead"),
        batch=Batch(count=4, wait=1.0) if kind == "batch" else None,
    )(many if kind == "batch" else one)
    return Kit(app, seed=seed, commit_interval=1.5)


def perform(kit: Kit, what: str, number: int) -> None:
    match what:
        case "send":
            for n in range(number):
                key = b"%d" % (n % KEYS)
                kit.send("orders", b"", key=key, partition=(n + number) % PARTITIONS)
        case "advance":
            kit.advance(number / 4)
        case "restart":
            assert kit.restart() is Exit.RESTART
        case "rebalance" | "lost":
            known = [p for p in range(PARTITIONS) if any(r.partition == p for r in kit.sent)]
            kit.rebalance(*known[: number % (PARTITIONS + 1)], lost=what == "lost")
        case "commit":
            kit.commit()
        case _:
            kit.crash()


@pytest.mark.parametrize(
    ("order_by", "kind"),
    [("partition", "one"), ("key", "one"), ("none", "one"), ("partition", "batch")],
)
@settings(max_examples=250)
@given(st.lists(happening, max_size=25), st.integers(1, 6), st.integers(0, 1_000))
def test_nothing_is_lost_and_the_order_is_kept(
    order_by: str, kind: str, happenings: list[tuple[str, int]], concurrency: int, seed: int
) -> None:
    kit = make(order_by, kind, concurrency, seed)
    for what, number in happenings:
        perform(kit, what, number)
    kit.run()
    dead = kit.dead_letters()
    origins = {dict(r.headers)["penstock.dlq.partition"] for r in dead}
    assert origins <= {b"%d" % p for p in range(PARTITIONS)}
    put_aside = {
        (int(h["penstock.dlq.partition"] or b""), int(h["penstock.dlq.offset"] or b""))
        for h in (dict(r.headers) for r in dead)
    }
    first = list(dict.fromkeys((r.partition, r.offset, r.key) for r in kit.handled))
    assert {(p, o) for p, o, _ in first} | put_aside == {(r.partition, r.offset) for r in kit.sent}
    if not {"crash", "lost"} & {what for what, _ in happenings}:
        assert kit.repeated == []
        assert len(dead) == len(put_aside)
    for partition in range(PARTITIONS):
        if any(r.partition == partition for r in kit.sent):
            assert kit.committed(partition) == sum(r.partition == partition for r in kit.sent)
        for key in {k for p, _, k in first if p == partition and order_by != "none"}:
            mine = [o for p, o, k in first if p == partition and (k == key or order_by[0] == "p")]
            assert mine == sorted(mine)
