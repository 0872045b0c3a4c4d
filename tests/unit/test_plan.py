from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from penstock.app import App, Order
from penstock.batching import Batch
from penstock.breaker import Breaker
from penstock.errors import ConfigError
from penstock.plan import Plan, plans
from penstock.policy import Last, Policy, Retry, dead_letter, skip, stop
from penstock.record import Record
from penstock.retry import Backoff
from penstock.signature import Kind


def app_with(*topics: str, subscriptions: int = 1, **options: Any) -> App:
    app = App(bootstrap_servers="broker:9092")
    for _ in range(subscriptions):
        app.subscribe(*topics, **options)(lambda record: None)
    return app


def only(app: App) -> Plan:
    [made] = plans(app)
    return made


def test_the_code_s_values() -> None:
    made = only(app_with("orders", "refunds", group="billing", concurrency=4))
    assert (made.topics, made.pattern, made.group, made.concurrency, made.kind) == (
        ("orders", "refunds"), None, "billing", 4, Kind(),
    )  # fmt: skip
    assert made.reads == "orders, refunds"


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TOPICS", "a,b"), ("GROUP_ID", "other"), ("CONCURRENCY", "2")):
        monkeypatch.setenv(f"PENSTOCK_{name}", value)
    made = only(app_with("orders", group="billing", concurrency=4))
    assert (made.topics, made.group, made.concurrency) == (("a", "b"), "other", 2)


def test_topics_of_the_environment_replace_a_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_with(pattern=r"audit\..+", group="archive")
    made = only(app)
    assert (made.topics, made.pattern, made.reads) == ((), r"audit\..+", r"/audit\..+/")
    monkeypatch.setenv("PENSTOCK_TOPICS", "orders")
    made = only(app)
    assert (made.topics, made.pattern) == (("orders",), None)


def test_a_policy_is_the_code_s_with_the_settings_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_RETRY_FIRST", "2")
    monkeypatch.setenv("PENSTOCK_RETRY_LIMIT", "40")
    retry, breaker = Retry(attempts=3, limit=8.0), Breaker(window=5)
    options: dict[str, Any] = {"then": skip(), "timeout": 1.5, "breaker": breaker}
    made = only(app_with("orders", group="g", order_by="key", retry=retry, **options))
    assert made.policy == Policy(retry, skip(), Backoff(first=2.0, limit=8.0), 1.5, breaker)
    assert made.order is Order.KEY


def test_without_a_policy_a_record_is_tried_for_ever_and_the_last_resort_is_to_stop() -> None:
    made = only(app_with("orders", group="g"))
    assert (made.policy.retry.attempts, made.policy.then) == (None, stop())
    assert (made.policy.timeout, made.policy.breaker) == (None, None)
    assert (made.order, made.batch) == (Order.PARTITION, Batch())


def test_several_subscriptions_are_plans_in_their_order() -> None:
    app = app_with("orders", group="billing")

    async def keep(record: Record) -> None: ...

    app.subscribe(pattern="audit.*", group="archive", order_by="none")(keep)
    first, second = plans(app)
    assert (first.topics, first.group) == (("orders",), "billing")
    assert (second.pattern, second.group, second.kind.asynchronous) == ("audit.*", "archive", True)
    assert second.name.endswith("keep")
    assert first.settings is second.settings


@pytest.mark.parametrize(
    ("topics", "options", "then", "refused"),
    [
        (["orders", "dead"], {}, dead_letter("dead"), True),
        ([], {"pattern": "orders.*"}, dead_letter("orders.dead"), True),
        ([], {"pattern": "orders"}, dead_letter("orders.dead"), False),  # for the whole name
        (["orders"], {}, dead_letter("orders.dead"), False),
    ],
)
def test_nobody_reads_what_he_put_aside(
    topics: list[str], options: dict[str, Any], then: Last, refused: bool
) -> None:
    app = app_with(*topics, group="g", then=then, **options)
    if refused:
        with pytest.raises(ConfigError, match=re.escape(f"reads {then.topic!r}")):
            plans(app)
    else:
        assert only(app).policy.then == then


@pytest.mark.parametrize(
    ("app", "sentence"),
    [
        (app_with("orders", group="g", subscriptions=0), "the app has no handler"),
        (app_with(group="g"), "no topics: .*PENSTOCK_TOPICS"),
        (app_with("orders"), "no consumer group: set PENSTOCK_GROUP_ID"),
        (App(), "PENSTOCK_BOOTSTRAP_SERVERS is not set"),
        (App(bootstrap_servers="broker:9092", workes=2), r"App\(workes=…\).*workers"),
    ],
)
def test_what_is_missing_is_named(app: App, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        plans(app)


@pytest.mark.parametrize("name", ["PENSTOCK_TOPICS", "PENSTOCK_GROUP_ID"])
def test_what_cannot_mean_one_of_several_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "other")
    with pytest.raises(ConfigError, match=f"{name} is set, but the app has 2 subscriptions"):
        plans(app_with("orders", group="g", subscriptions=2))


def test_a_decoder_that_cannot_be_made_is_told_before_a_worker_starts() -> None:
    @dataclass
    class Odd:
        guard: threading.Thread  # nothing that JSON, or pydantic, knows

    def handler(order: Odd) -> None: ...

    handler.__annotations__["order"] = Odd
    app = App(bootstrap_servers="broker:9092")
    app.subscribe("orders", group="g")(handler)
    with pytest.raises(ConfigError, match=r"handler .*handler: values cannot be decoded to"):
        plans(app)


def bill(record: Record) -> None: ...


def audit(record: Record) -> None: ...


SHARED: list[tuple[dict[str, Any], dict[str, Any], str | None]] = [
    ({"topics": ["a", "b"]}, {"topics": ["b"]}, "'b'"),
    ({"topics": ["a"]}, {"topics": ["b"]}, None),
    ({"topics": ["a"]}, {"topics": ["a"], "group": "audit"}, None),
    ({"topics": ["a.b"]}, {"pattern": r"a\..*"}, "'a.b'"),
    ({"pattern": r"a\..*"}, {"topics": ["a.b"]}, "'a.b'"),
    ({"pattern": "a"}, {"topics": ["a.b"]}, None),  # a pattern is of the whole name
    ({"pattern": r"a\..*"}, {"pattern": r"a\..*"}, r"/a\..*/"),
    ({"pattern": r"a\..*"}, {"pattern": r"a.*"}, None),  # known only where there are topics
]


@pytest.mark.parametrize(("one", "other", "shared"), SHARED)
def test_a_topic_is_read_once_in_a_group(
    one: dict[str, Any], other: dict[str, Any], shared: str | None
) -> None:
    app = App(bootstrap_servers="broker:9092")
    for handler, options in ((bill, one), (audit, other)):
        given = {"group": "billing", **options}
        app.subscribe(*given.pop("topics", ()), **given)(handler)
    if shared is None:
        assert len(plans(app)) == 2
        return
    with pytest.raises(ConfigError, match=re.escape(f"bill and audit both read {shared} in")):
        plans(app)
