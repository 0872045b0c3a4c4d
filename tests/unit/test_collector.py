from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

from penstock.exits import known_codes
from penstock.lifecycle import State
from penstock.supervisor.exit_history import ExitHistory, Ledger, exit_line, gap_line
from penstock.supervisor.exit_record import ExitRecord
from penstock.telemetry import catalog
from penstock.telemetry.collector import Facts, WorkerFacts, exposition
from penstock.telemetry.tally import Tally

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3"
TEXT = ""

#: The contract (DESIGN.md): dashboards and alerts are written against these names.
NAMES = {
    "penstock_build_info": ("version", "python", "kafka_python"),
    "penstock_state": ("state",),
    "penstock_exits_total": ("code", "name", "planned"),
    "penstock_unplanned_exits_total": (),
    "penstock_last_exit_timestamp_seconds": (),
    "penstock_last_exit_info": ("code", "name", "planned", "reason"),
    "penstock_worker_exits_total": ("code", "name", "planned"),
    "penstock_worker_recycles_total": ("reason",),
    "penstock_reloads_total": ("outcome",),
    "penstock_worker_memory_bytes": ("worker",),
    "penstock_memory_working_set_bytes": (),
    "penstock_memory_limit_bytes": (),
    "penstock_restart_requests_total": ("source",),
    "penstock_record_failures_total": ("topic", "reason"),
    "penstock_dead_letter_sends_total": ("topic", "outcome"),
    "penstock_retrying_records": (),
    "penstock_breaker_open": ("group",),
    "penstock_breaker_opened_total": ("group",),
    "penstock_drain_duration_seconds": (),
    "penstock_restart_gap_seconds": (),
    "penstock_records_total": ("topic", "outcome"),
    "penstock_record_processing_seconds": ("topic",),
    "penstock_record_age_seconds": ("topic",),
    "penstock_in_flight_records": (),
    "penstock_oldest_in_flight_seconds": (),
    "penstock_consumer_lag": ("topic", "partition"),
    "penstock_assigned_partitions": (),
    "penstock_rebalances_total": ("event",),
    "penstock_commits_total": ("outcome",),
    "penstock_poll_age_seconds": ("worker",),
}

#: A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def history(*lines: bytes) -> ExitHistory:
    ledger = Ledger()
    for line in lines:
        ledger.feed(line)
    return ledger.history()


FRESH = Facts(
    state=State.STARTING,
    workers=(),
    retired=Tally(),
    exits=history(),
    worker_exits={},
    restart_requests={},
    build={"version": "1.2.3", "python": "3.11.7", "kafka_python": "3.0.12"},
)


def worker(index: int = 0, **changes: object) -> WorkerFacts:
    plain = WorkerFacts(
        index,
        tally=Tally(),
        lag={},
        assigned=0,
        in_flight=0,
        oldest_in_flight=None,
        poll_age=None,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # named by each test


def parsed(facts: Facts, accept: str) -> Series:
    content, content_type = exposition(facts, accept)
    text = content.decode()
    if accept == OPENMETRICS:
        assert content_type.startswith("application/openmetrics-text; version=1.0.0")
        assert text.endswith("# EOF\n")
        families: Iterable[Any] = openmetrics.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # theirs has none
    else:
        assert content_type.startswith("text/plain; version=0.0.4")
        families = parser.text_string_to_metric_families(text)
    series: Series = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in series, f"{key} exported twice"
            series[key] = sample.value
    return series


def get(series: Series, name: str, /, **labels: str) -> float | None:
    return series.get((name, frozenset(labels.items())))


both = pytest.mark.parametrize("accept", [TEXT, OPENMETRICS], ids=["text", "openmetrics"])


def test_the_catalogue_has_the_contract_names_once() -> None:
    assert {metric.name: metric.labels for metric in catalog.METRICS} == NAMES
    assert len(catalog.METRICS) == len(NAMES)


@pytest.mark.parametrize("metric", catalog.METRICS, ids=lambda metric: metric.name)
def test_each_metric_is_told_under_its_name_with_its_help(metric: catalog.Metric) -> None:
    text = exposition(FRESH, TEXT)[0].decode()
    kind = "gauge" if metric.kind == "info" else metric.kind
    assert f"# TYPE {metric.name} {kind}\n" in text
    assert f"# HELP {metric.name} {metric.help}\n" in text
    suffix = {"counter": "_total", "info": "_info"}.get(metric.kind, "")
    assert metric.name.endswith(suffix)
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert all(len(labels) == len(metric.labels) for labels in metric.known)


@both
def test_counters_start_at_zero_with_the_first_scrape(accept: str) -> None:
    series = parsed(FRESH, accept)
    assert get(series, "penstock_unplanned_exits_total") == 0
    for code, name, planned in known_codes():
        labels = {"code": code, "name": name, "planned": str(planned).lower()}
        assert get(series, "penstock_exits_total", **labels) == 0
        expected = None if name == "LOST" else 0
        assert get(series, "penstock_worker_exits_total", **labels) == expected
    for source in ("signal", "http", "prestop"):
        assert get(series, "penstock_restart_requests_total", source=source) == 0
    for outcome in ("ok", "failed"):
        assert get(series, "penstock_commits_total", outcome=outcome) == 0
    for event in ("assigned", "revoked", "lost"):
        assert get(series, "penstock_rebalances_total", event=event) == 0
    assert get(series, "penstock_drain_duration_seconds_count") == 0
    assert get(series, "penstock_restart_gap_seconds_count") == 0


@both
@pytest.mark.parametrize("state", State)
def test_exactly_one_state_is_1(accept: str, state: State) -> None:
    series = parsed(replace(FRESH, state=state), accept)
    for other in State:
        assert get(series, "penstock_state", state=other) == int(other is state)


@both
def test_the_last_exit_is_absent_on_the_first_run(accept: str) -> None:
    names = {name for name, _ in parsed(FRESH, accept)}
    assert not {"penstock_last_exit_timestamp_seconds", "penstock_last_exit_info"} & names


@both
def test_exits_come_from_the_journal(accept: str) -> None:
    restart = ExitRecord.of(
        4, reason="deploy 7", at=1_700_000_000.5, drain_seconds=3.0, last_done_at=1.0
    )
    lost = ExitRecord.of(None, reason='killed\nby "someone"', at=1_700_000_100)
    exits = history(exit_line("a", restart), gap_line(7.5), exit_line("b", lost))
    series = parsed(replace(FRESH, exits=exits), accept)
    restarts = get(series, "penstock_exits_total", code="4", name="RESTART", planned="true")
    losts = get(series, "penstock_exits_total", code="unknown", name="LOST", planned="false")
    assert (restarts, losts) == (1, 1)
    assert get(series, "penstock_unplanned_exits_total") == 1
    assert get(series, "penstock_last_exit_timestamp_seconds") == 1_700_000_100
    assert (
        get(
            series,
            "penstock_last_exit_info",
            code="unknown",
            name="LOST",
            planned="false",
            reason='killed by "someone"',
        )
        == 1
    )
    assert get(series, "penstock_drain_duration_seconds_sum") == 3
    assert get(series, "penstock_drain_duration_seconds_bucket", le="2.5") == 0
    assert get(series, "penstock_drain_duration_seconds_bucket", le="5.0") == 1
    assert get(series, "penstock_restart_gap_seconds_sum") == 7.5


@both
def test_a_reason_is_one_line_of_bounded_length(accept: str) -> None:
    exits = history(exit_line("a", ExitRecord.of(1, reason="x" * 3000, at=1)))
    series = parsed(replace(FRESH, exits=exits), accept)
    (labels,) = (dict(labels) for name, labels in series if name == "penstock_last_exit_info")
    assert labels["reason"] == "x" * 159 + "…"


@both
def test_workers_present_and_retired_are_added_up(accept: str) -> None:
    retired, first, second = Tally(), Tally(), Tally()
    for tally, done in ((retired, 100), (first, 20), (second, 3)):
        tally.count("orders", "done", done)
        tally.batch("orders", [0.2] * done, 60.0)
        tally.commit("ok")
        tally.rebalance("revoked")
    facts = replace(
        FRESH,
        retired=retired,
        workers=(
            worker(0, tally=first, assigned=2, in_flight=3, oldest_in_flight=1.5, poll_age=0.1),
            worker(1, tally=second, assigned=4, in_flight=1, oldest_in_flight=9.0, poll_age=30.0),
        ),
        worker_exits={("137", "KILLED", False): 2, ("17", "CRASHED", False): 1},
        restart_requests={"http": 5},
    )
    series = parsed(facts, accept)
    assert get(series, "penstock_records_total", topic="orders", outcome="done") == 123
    assert get(series, "penstock_records_total", topic="orders", outcome="lost") == 0
    assert get(series, "penstock_record_processing_seconds_count", topic="orders") == 123
    assert get(series, "penstock_record_age_seconds_sum", topic="orders") == 180
    assert get(series, "penstock_commits_total", outcome="ok") == 3
    assert get(series, "penstock_rebalances_total", event="revoked") == 3
    assert get(series, "penstock_assigned_partitions") == 6
    assert get(series, "penstock_in_flight_records") == 4
    assert get(series, "penstock_oldest_in_flight_seconds") == 9
    assert get(series, "penstock_poll_age_seconds", worker="0") == 0.1
    assert get(series, "penstock_poll_age_seconds", worker="1") == 30
    killed = {"code": "137", "name": "KILLED", "planned": "false"}
    assert get(series, "penstock_worker_exits_total", **killed) == 2
    odd = {"code": "17", "name": "CRASHED", "planned": "false"}
    assert get(series, "penstock_worker_exits_total", **odd) == 1
    assert get(series, "penstock_restart_requests_total", source="http") == 5
    # A scrape only looks.
    assert retired.records["orders"]["done"] == 100


@both
def test_breakers_are_told_by_group_and_counted_beyond_their_worker(accept: str) -> None:
    retired, first = Tally(), Tally()
    retired.breaker_opened("billing")
    first.breaker_opened("billing")
    first.failure("orders", "poison")
    first.dead_letter("orders", "failed")
    facts = replace(
        FRESH,
        retired=retired,
        workers=(
            worker(0, tally=first, group="billing", breaker_closed=False, retrying=2),
            worker(1, group="billing", retrying=1),
            worker(2, group="audit"),
        ),
    )
    series = parsed(facts, accept)
    assert get(series, "penstock_breaker_open", group="billing") == 1
    assert get(series, "penstock_breaker_open", group="audit") == 0
    assert get(series, "penstock_breaker_opened_total", group="billing") == 2
    assert get(series, "penstock_breaker_opened_total", group="audit") == 0
    assert get(series, "penstock_retrying_records") == 3
    assert get(series, "penstock_record_failures_total", topic="orders", reason="poison") == 1
    assert get(series, "penstock_record_failures_total", topic="orders", reason="timeout") == 0
    assert get(series, "penstock_dead_letter_sends_total", topic="orders", outcome="failed") == 1


@both
def test_unknown_lag_is_absent_and_known_lag_may_be_zero(accept: str) -> None:
    facts = replace(
        FRESH,
        workers=(worker(0, lag={("a", 0): 0, ("a", 1): 7}, assigned=3), worker(1, assigned=1)),
    )
    series = parsed(facts, accept)
    assert get(series, "penstock_consumer_lag", topic="a", partition="0") == 0
    assert get(series, "penstock_consumer_lag", topic="a", partition="1") == 7
    assert sum(name == "penstock_consumer_lag" for name, _ in series) == 2


@both
def test_a_partition_that_two_workers_name_is_exported_once(accept: str) -> None:
    workers = (worker(0, lag={("a", 0): 900}), worker(1, lag={("a", 0): 3}))
    series = parsed(replace(FRESH, workers=workers), accept)
    assert get(series, "penstock_consumer_lag", topic="a", partition="0") == 900


@both
@pytest.mark.parametrize(
    ("in_flight", "oldest", "expected"), [(0, None, 0), (0, 5.0, 0), (1, 5.0, 5), (1, None, None)]
)
def test_oldest_in_flight(
    accept: str, in_flight: int, oldest: float | None, expected: float | None
) -> None:
    facts = replace(FRESH, workers=(worker(in_flight=in_flight, oldest_in_flight=oldest),))
    assert get(parsed(facts, accept), "penstock_oldest_in_flight_seconds") == expected


@both
def test_poll_age_is_absent_before_the_first_poll(accept: str) -> None:
    series = parsed(replace(FRESH, workers=(worker(0), worker(1, poll_age=0.0))), accept)
    assert get(series, "penstock_poll_age_seconds", worker="0") is None
    assert get(series, "penstock_poll_age_seconds", worker="1") == 0


@both
def test_memory_that_is_not_told_is_absent(accept: str) -> None:
    series = parsed(replace(FRESH, workers=(worker(0),)), accept)
    assert get(series, "penstock_worker_memory_bytes", worker="0") is None
    assert get(series, "penstock_memory_working_set_bytes") is None
    assert get(series, "penstock_memory_limit_bytes") is None
    assert get(series, "penstock_worker_recycles_total", reason="memory") == 0
    facts = replace(
        FRESH,
        workers=(worker(0, memory=70_000_000), worker(1, memory=80_000_000)),
        working_set=200_000_000,
        memory_limit=400_000_000,
        recycles={"memory": 2},
    )
    series = parsed(facts, accept)
    assert get(series, "penstock_worker_memory_bytes", worker="1") == 80_000_000
    assert get(series, "penstock_memory_working_set_bytes") == 200_000_000
    assert get(series, "penstock_memory_limit_bytes") == 400_000_000
    assert get(series, "penstock_worker_recycles_total", reason="memory") == 2


@both
def test_build_info_has_the_catalogue_s_labels(accept: str) -> None:
    series = parsed(FRESH, accept)
    assert get(series, "penstock_build_info", **FRESH.build) == 1


@both
def test_only_names_of_the_catalogue_are_exported(accept: str) -> None:
    tally = Tally(["orders"])
    facts = replace(FRESH, workers=(worker(tally=tally, lag={("orders", 0): 1}),))
    for name, labels in parsed(facts, accept):
        family = name
        for suffix in ("_bucket", "_count", "_sum"):
            family = family.removesuffix(suffix)
        assert {label for label, _ in labels} - {"le"} == set(NAMES[family])


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "application/openmetrics-text;version=abc",
        "text/plain;version=x.y",
        "application/openmetrics-text;version=99.0",
        "application/openmetrics-text;version=2.0\r\nSet-Cookie: a",
        "application/openmetrics-text;version=0.0.1",
        ";;;,,,==",
    ],
)
def test_an_accept_header_that_asks_for_the_impossible_gets_text(accept: str) -> None:
    content, content_type = exposition(FRESH, accept)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert b"# EOF" not in content


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text",
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;q=0.1",
    ],
)
def test_openmetrics_is_spoken_where_it_is_asked_for(accept: str) -> None:
    content, content_type = exposition(FRESH, accept)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert content.endswith(b"# EOF\n")


@patient
@given(st.text(max_size=60), st.text(max_size=30), st.sampled_from([TEXT, OPENMETRICS]))
def test_no_text_breaks_a_scrape(reason: str, topic: str, accept: str) -> None:
    exits = history(exit_line("a", ExitRecord.of(1, reason=reason, at=1)))
    tally = Tally([topic + "\ud800"])  # lone surrogates as well
    tally.batch(topic, [0.1, math.nan], -5.0)
    facts = replace(FRESH, exits=exits, retired=tally, build={"version": reason + "\udc80"})
    content, _ = exposition(facts, accept)
    parse = (
        openmetrics.text_string_to_metric_families
        if accept == OPENMETRICS
        else parser.text_string_to_metric_families
    )
    names = {family.name for family in parse(content.decode())}
    assert "penstock_records" in names
