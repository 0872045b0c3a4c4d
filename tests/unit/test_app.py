from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from penstock.app import App, Order
from penstock.batching import Batch
from penstock.breaker import Breaker
from penstock.errors import ConfigError
from penstock.policy import Retry, dead_letter, stop
from penstock.record import Record
from penstock.signature import Kind


def one(record: Record) -> None: ...
def many(records: list[Record]) -> None: ...


@pytest.mark.parametrize("handler", [one, many])
def test_a_handler_stays_what_it_is(handler: Callable[..., object]) -> None:
    app = App()
    assert app.subscribe("orders", group="billing", concurrency=3)(handler) is handler
    [subscription] = app.subscriptions
    assert (subscription.topics, subscription.group, subscription.concurrency) == (
        ("orders",), "billing", 3,
    )  # fmt: skip
    assert subscription.handler is handler
    assert subscription.kind == Kind(batch=handler is many)
    assert subscription.name == handler.__name__


def test_what_is_not_said() -> None:
    app = App()
    app.subscribe("orders")(one)
    [made] = app.subscriptions
    assert (made.pattern, made.group, made.concurrency, made.order) == (
        None, None, 1, Order.PARTITION,
    )  # fmt: skip
    assert (made.retry, made.then, made.timeout, made.breaker, made.batch) == (
        Retry(), stop(), None, None, Batch(),
    )  # fmt: skip


def test_what_is_said_arrives() -> None:
    app = App()
    retry, then, breaker = Retry(attempts=2), dead_letter("dead"), Breaker(window=3)
    options: dict[str, Any] = {"retry": retry, "then": then, "breaker": breaker, "timeout": 2.5}
    app.subscribe(pattern="orders.*", order_by="none", **options)(one)
    batch = Batch(count=3)
    app.subscribe("orders", batch=batch)(many)
    first, second = app.subscriptions
    assert (first.pattern, first.topics, first.order) == ("orders.*", (), Order.NONE)
    assert (first.retry, first.then, first.breaker, first.timeout) == (retry, then, breaker, 2.5)
    assert second.batch == batch


@pytest.mark.parametrize("concurrency", [0, -1])
def test_concurrency_is_at_least_one(concurrency: int) -> None:
    with pytest.raises(ConfigError, match="a whole number from 1 to 1024"):
        App().subscribe("orders", concurrency=concurrency)


@pytest.mark.parametrize(
    ("handler", "topics", "options", "sentence"),
    [
        (one, ["orders"], {"timeout": 0}, r"timeout=0\): seconds, above 0"),
        (one, ["orders"], {"timeout": -1.0}, "timeout=-1.0"),
        (one, ["orders"], {"order_by": "keys"}, '"partition", "key", "none"'),
        (one, ["orders"], {"pattern": "o.*"}, "either topics or pattern=, not both"),
        (one, [], {"pattern": "o("}, r"pattern='o\(' is not a regular expression"),
        (one, [one], {}, r"not <function one.*write @app.subscribe\(…\)"),
        (one, ["orders", 3], {}, "topic names, not 3$"),
        (one, ["orders"], {"batch": Batch()}, "handler one takes no list"),
        (many, ["orders"], {"order_by": "key"}, 'handler many takes batches.*order_by="key"'),
        (many, ["orders"], {"order_by": "none"}, "handler many takes batches"),
    ],
)  # fmt: skip
def test_combinations_that_could_never_work(
    handler: Callable[..., object], topics: list[Any], options: dict[str, Any], sentence: str
) -> None:
    app = App()
    with pytest.raises(ConfigError, match=sentence):
        app.subscribe(*topics, **options)(handler)
    assert app.subscriptions == []
