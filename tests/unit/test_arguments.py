"""Whatever is written where something else is wanted: one sentence, when it is written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from penstock import App, Batch, Breaker, ConfigError, Record, Retry, dead_letter, skip, stop
from penstock.arguments import shown, topic_problem


def handle(record: Record) -> None: ...


def nothing() -> None: ...


def three(a: object, b: object, c: object) -> None: ...


def subscribe(*topics: Any, handler: Any = handle, **options: Any) -> Callable[[], object]:
    return lambda: App().subscribe(*(topics or ("orders",)), **options)(handler)


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


COUNT = "a whole number from 1 to 1024"
WRONG: list[tuple[Callable[[], object], str]] = [
    (subscribe(concurrency=2000), f"subscribe(concurrency=2000): {COUNT}"),
    (subscribe(concurrency="64"), f"subscribe(concurrency='64'): {COUNT}"),
    (subscribe(concurrency=True), f"subscribe(concurrency=True): {COUNT}"),
    (subscribe(concurrency=1.5), f"subscribe(concurrency=1.5): {COUNT}"),
    (subscribe(concurrency=None), f"subscribe(concurrency=None): {COUNT}"),
    (subscribe(deaths=0), "subscribe(deaths=0): a whole number from 1 to 1000"),
    (subscribe(deaths=True), "subscribe(deaths=True): a whole number from 1 to 1000"),
    (subscribe(deaths=None), "subscribe(deaths=None): a whole number from 1 to 1000"),
    (subscribe(retry=5), "subscribe(retry=5): write retry=Retry(attempts=5)"),
    (subscribe(retry=Retry), "write retry=Retry(attempts=5)"),
    (subscribe(then="orders.dead"), 'then=dead_letter("orders.dead")'),
    (subscribe(then=dead_letter), 'write then=dead_letter("orders.dead")'),
    (subscribe(then=skip), "write then=skip()"),
    (subscribe(then=stop), "write then=stop()"),
    (subscribe(then=Hostile()), "subscribe(then=<Hostile>): write "),
    (subscribe(breaker=True), "subscribe(breaker=True): write breaker=Breaker()"),
    (subscribe(batch=500), "subscribe(batch=500): write batch=Batch(count=500)"),
    (subscribe(timeout="3"), "subscribe(timeout='3'): seconds, above 0"),
    (subscribe(timeout=math.nan), "subscribe(timeout=nan): seconds"),
    (subscribe(timeout=math.inf), "subscribe(timeout=inf): seconds"),
    (subscribe(timeout=10**400), "0000…): seconds, above 0"),
    (subscribe(timeout=True), "subscribe(timeout=True): seconds"),
    (subscribe(order_by=5), 'subscribe(order_by=5): one of "partition", "key", "none"'),
    (subscribe(order_by=None), 'one of "partition", "key", "none"'),
    (subscribe(group=5), "subscribe(group=5): the name of a consumer group"),
    (subscribe(group=""), "subscribe(group=''): the name of a consumer group"),
    (subscribe(group="\udcff"), "the name of a consumer group"),
    (subscribe("or ders"), "'or ders' is no topic's name: 1 to 249 letters"),
    (subscribe(".."), "'..' is no topic's name"),
    (subscribe("o" * 250), "is no topic's name"),
    (subscribe(""), "'' is no topic's name"),
    (subscribe("orders", b"more"), "subscribe takes topic names, not b'more'"),
    (lambda: App().subscribe(pattern=re.compile("o")), "the text of a regular expression"),  # type: ignore[arg-type]
    (lambda: App().subscribe(pattern=5), "the text of a regular expression"),  # type: ignore[arg-type]
    (lambda: App().subscribe(pattern=""), "the text of a regular expression"),
    (subscribe(handler=5), "@app.subscribe(…) is for a function, not for 5"),
    (subscribe(handler=None), "is for a function, not for None"),
    (subscribe(handler=nothing), "handler nothing must take exactly one argument"),
    (subscribe(handler=three), "handler three must take exactly one argument"),
    (subscribe(handler=type), "handler type does not tell what it takes"),
    (lambda: Retry(attempts=0), "Retry(attempts=0): a whole number of at least 1, the first try"),
    (lambda: Retry(attempts="3"), "Retry(attempts='3'): a whole number"),  # type: ignore[arg-type]
    (lambda: Retry(attempts=True), "Retry(attempts=True)"),
    (lambda: Retry(attempts=2.0), "Retry(attempts=2.0)"),  # type: ignore[arg-type]
    (lambda: Retry(first="1"), "Retry(first='1'): seconds"),  # type: ignore[arg-type]
    (lambda: Retry(limit=math.nan), "Retry(limit=nan): seconds"),
    (lambda: Retry(on=5), "Retry(on=5): exception classes"),  # type: ignore[arg-type]
    (lambda: Retry(on="KeyError"), "Retry(on='KeyError'): exception classes"),  # type: ignore[arg-type]
    (lambda: Breaker(share=0), "Breaker(share=0): a number above 0 and at most 1"),
    (lambda: Breaker(share=50), "Breaker(share=50): a number above 0 and at most 1"),
    (lambda: Breaker(share="half"), "Breaker(share='half')"),  # type: ignore[arg-type]
    (lambda: Breaker(share=math.nan), "Breaker(share=nan)"),
    (lambda: Breaker(window=2.5), "Breaker(window=2.5): a whole number"),  # type: ignore[arg-type]
    (lambda: Breaker(window=10**9), "a whole number from 1 to 1000000"),
    (lambda: Breaker(pause=math.inf), "Breaker(pause=inf): seconds"),
    (lambda: Breaker(pause=400), "Breaker(pause=400, limit=300): the pause is longer"),
    (lambda: Breaker(limit="5"), "Breaker(limit='5'): seconds"),  # type: ignore[arg-type]
    (lambda: Batch(count=True), "Batch(count=True): a whole number"),
    (lambda: Batch(count="5"), "Batch(count='5'): a whole number"),  # type: ignore[arg-type]
    (lambda: Batch(bytes=1e6), "Batch(bytes=1000000.0): a whole number"),  # type: ignore[arg-type]
    (lambda: Batch(wait="1"), "Batch(wait='1'): seconds, 0 or more"),  # type: ignore[arg-type]
    (lambda: dead_letter(""), "name the topic"),
    (lambda: dead_letter(None), "name the topic"),  # type: ignore[arg-type]
    (lambda: dead_letter("orders dead"), "'orders dead' is no topic's name"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "sentence"), WRONG, ids=[s for _, s in WRONG])
def test_one_sentence(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_what_is_right_passes() -> None:
    subscribe(
        concurrency=1024,
        retry=Retry(attempts=1, first=1, limit=86_400, on=[OSError, KeyError]),  # type: ignore[arg-type]
        then=dead_letter("Orders.dead-1_a"),
        timeout=0.001,
        breaker=Breaker(share=1, window=1, pause=300),
        order_by="key",
        group="Rechnungen für alle",
    )()
    assert Batch(wait=0).wait == 0
    assert Retry(on=[OSError]).on == (OSError,)  # type: ignore[arg-type]


def test_a_value_is_shown_in_one_short_line() -> None:
    assert shown("a\nb") == r"'a\nb'"
    assert len(shown("x" * 10_000)) == 60
    assert shown(handle) == "<function handle>"
    assert topic_problem("a" * 249) is None
