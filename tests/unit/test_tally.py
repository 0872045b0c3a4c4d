from __future__ import annotations

import json
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.telemetry.catalog import (
    COMMIT_OUTCOMES,
    FAILURE_REASONS,
    REBALANCE_EVENTS,
    RECORD_OUTCOMES,
    CommitOutcome,
    FailureReason,
    RebalanceEvent,
    RecordOutcome,
)
from penstock.telemetry.tally import Tally

#: A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

topics = st.sampled_from(["orders", "payments", "héllo"])
seconds = st.integers(0, 1000).map(float)  # whole, so that sums do not depend on their order

batches = st.tuples(st.just("batch"), topics, st.lists(seconds), st.none() | seconds)
counts = st.tuples(
    st.just("count"), topics, st.sampled_from(RECORD_OUTCOMES), st.integers(0, 10**6)
)
commits = st.tuples(st.just("commit"), st.sampled_from(COMMIT_OUTCOMES))
rebalances = st.tuples(st.just("rebalance"), st.sampled_from(REBALANCE_EVENTS))
handled = st.tuples(
    st.just("handled"),
    topics,
    st.sampled_from(["done", "lost"]),
    st.lists(seconds),
    st.none() | seconds,
)
failures = st.tuples(st.just("failure"), topics, st.sampled_from(FAILURE_REASONS))
letters = st.tuples(st.just("dead_letter"), topics, st.sampled_from(COMMIT_OUTCOMES))
breakers = st.tuples(st.just("breaker_opened"), st.sampled_from(["billing", "mail"]))
calls = st.lists(batches | counts | commits | rebalances | handled | failures | letters | breakers)


def tallied(events: list[tuple[object, ...]]) -> Tally:
    tally = Tally()
    for method, *arguments in events:
        getattr(tally, str(method))(*arguments)
    return tally


def test_outcomes_and_times_are_counted_apart() -> None:
    tally = Tally()
    tally.batch("orders", [0.1, 0.2], age=3.0)
    tally.count("orders", "done", 2)
    tally.batch("orders", [0.3], age=None)
    tally.count("orders", "retried")
    assert tally.records == {
        "orders": {**dict.fromkeys(RECORD_OUTCOMES, 0), "done": 2, "retried": 1}
    }
    assert tally.processing["orders"].count == 3
    assert tally.processing["orders"].sum == pytest.approx(0.6)
    assert (tally.age["orders"].count, tally.age["orders"].sum) == (1, 3.0)


@patient
@given(
    st.lists(
        st.tuples(topics, st.sampled_from(RECORD_OUTCOMES), st.lists(seconds), st.none() | seconds)
    )
)
def test_what_a_runner_did_in_one_go_is_a_batch_and_its_outcomes(
    work: list[tuple[str, RecordOutcome, list[float], float | None]],
) -> None:
    one, two = Tally(), Tally()
    for topic, outcome, durations, age in work:
        one.handled(topic, outcome, durations, age)
        two.batch(topic, durations, age)
        two.count(topic, outcome, len(durations))
    assert one.to_json() == two.to_json()


@pytest.mark.parametrize("reason", FAILURE_REASONS)
def test_failures_and_their_reasons(reason: FailureReason) -> None:
    tally = Tally()
    tally.failure("orders", reason)
    assert tally.failures == {"orders": {**dict.fromkeys(FAILURE_REASONS, 0), reason: 1}}


@pytest.mark.parametrize("outcome", COMMIT_OUTCOMES)
def test_dead_letters(outcome: CommitOutcome) -> None:
    tally = Tally()
    tally.dead_letter("orders", outcome)
    assert tally.dead_letters == {"orders": {**dict.fromkeys(COMMIT_OUTCOMES, 0), outcome: 1}}


def test_breakers_by_group() -> None:
    tally = Tally()
    for group in ("billing", "mail", "billing"):
        tally.breaker_opened(group)
    assert tally.breakers == {"billing": 2, "mail": 1}


@pytest.mark.parametrize("outcome", COMMIT_OUTCOMES)
def test_commits(outcome: CommitOutcome) -> None:
    tally = Tally()
    tally.commit(outcome)
    assert tally.commits == {**dict.fromkeys(COMMIT_OUTCOMES, 0), outcome: 1}


@pytest.mark.parametrize("event", REBALANCE_EVENTS)
def test_rebalances(event: RebalanceEvent) -> None:
    tally = Tally()
    tally.rebalance(event)
    assert tally.rebalances == {**dict.fromkeys(REBALANCE_EVENTS, 0), event: 1}


def test_a_topic_known_beforehand_starts_at_zero() -> None:
    tally = Tally(["orders"])
    assert tally.records == {"orders": dict.fromkeys(RECORD_OUTCOMES, 0)}
    assert tally.processing["orders"].count == tally.age["orders"].count == 0


def test_an_outcome_that_is_not_in_the_catalogue_is_refused() -> None:
    outcome: RecordOutcome = "eaten"  # type: ignore[assignment]  # the point
    with pytest.raises(KeyError):
        Tally().count("orders", outcome)


@patient
@given(calls)
def test_survives_json(events: list[tuple[object, ...]]) -> None:
    tally = tallied(events)
    twin = Tally.from_json(json.loads(json.dumps(tally.to_json())))
    assert twin.to_json() == tally.to_json()


@patient
@given(calls, calls)
def test_merging_is_counting_together(
    left: list[tuple[object, ...]], right: list[tuple[object, ...]]
) -> None:
    merged = tallied(left)
    merged.merge(tallied(right))
    assert merged.to_json() == tallied(left + right).to_json()


@patient
@given(calls)
def test_a_snapshot_replaces_the_one_before(events: list[tuple[object, ...]]) -> None:
    """Cumulative: whatever snapshots got lost, the last one has everything."""
    tally = Tally()
    received = Tally()
    for number, (method, *arguments) in enumerate(events):
        getattr(tally, str(method))(*arguments)
        if number % 3 == 0:  # the others are lost
            received = Tally.from_json(tally.to_json())
    received = Tally.from_json(tally.to_json())
    assert received.to_json() == tallied(events).to_json()


def test_a_tally_can_be_merged_into_itself() -> None:
    tally = Tally()
    tally.count("orders", "done", 2)
    tally.merge(tally)
    assert tally.records["orders"]["done"] == 4


def test_a_snapshot_taken_while_threads_count_is_consistent() -> None:
    tally = Tally()
    rounds, threads = 300, 4

    def work(number: int) -> None:
        for index in range(rounds):
            tally.batch(f"topic-{number}-{index % 50}", [0.1, 0.2], 1.0)
            tally.count("shared", "done")

    workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        Tally().merge(tally)
        for topic, numbers in tally.to_json()["topics"].items():
            if topic != "shared":
                assert sum(numbers["processing"]["counts"]) == 2 * sum(numbers["age"]["counts"])
    assert tally.records["shared"]["done"] == rounds * threads


def test_merging_waits_for_a_batch_that_is_being_counted() -> None:
    busy, total = Tally(["orders"]), Tally()
    merging = threading.Thread(target=total.merge, args=(busy,))
    with busy._lock:
        merging.start()
        merging.join(0.2)
        assert merging.is_alive()
        assert not total._lock.locked()  # and does not hold up those who count meanwhile
    merging.join()
    assert "orders" in total.records


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"topics": []},
        {**Tally().to_json(), "topics": {"a": {}}},
        {**Tally().to_json(), "commits": {"ok": "x", "failed": 0}},
        {**Tally().to_json(), "rebalances": None},
        {**Tally().to_json(), "breakers": None},
        {**Tally().to_json(), "breakers": {"billing": "often"}},
        {n: v for n, v in Tally().to_json().items() if n != "breakers"},
    ],
)
def test_garbage_is_refused(data: object) -> None:
    with pytest.raises(ValueError):
        Tally.from_json(data)
