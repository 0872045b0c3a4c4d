from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from penstock.app import App
from penstock.errors import ConfigError
from penstock.record import Record

if TYPE_CHECKING:
    from penstock.record import Record as Elsewhere


def batch_of(handler: Callable[..., object]) -> bool:
    app = App()
    assert app.subscribe("orders", group="billing", concurrency=3)(handler) is handler
    [subscription] = app.subscriptions
    assert (subscription.topics, subscription.group, subscription.concurrency) == (
        ("orders",), "billing", 3,
    )  # fmt: skip
    return subscription.batch


def unannotated(record): ...  # type: ignore[no-untyped-def]
def one(record: Record) -> None: ...
def quoted(record: Record) -> None: ...
def anything(record: Any) -> None: ...
def an_object(record: object) -> None: ...
def with_default(record: Record, retries: int = 3) -> None: ...
def with_rest(record: Record, *rest: Any, **more: Any) -> None: ...
def perhaps(record: Record | None) -> None: ...
def unresolved(record: Elsewhere) -> None: ...
def many(records: list[Record]) -> None: ...
def many_quoted(records: list[Record]) -> None: ...
def plain_list(records: list) -> None: ...  # type: ignore[type-arg] # what people write
def many_unresolved(records: list[Elsewhere]) -> None: ...


def many_twice_quoted(records: "list[Elsewhere]") -> None: ...  # noqa: UP037 (people do)


class Callable1:
    def __call__(self, record: Record) -> None: ...

    def method(self, record: Record) -> None: ...

    def many(self, records: list[Record]) -> None: ...


class CallableMany:
    def __call__(self, records: list[Record]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "batch"),
    [
        (unannotated, False),
        (one, False),
        (quoted, False),
        (anything, False),
        (an_object, False),
        (with_default, False),
        (with_rest, False),
        (perhaps, False),
        (unresolved, False),
        (lambda record: None, False),
        (functools.partial(with_default, retries=1), False),
        (Callable1(), False),
        (Callable1().method, False),
        ([].append, False),
        (many, True),
        (many_quoted, True),
        (plain_list, True),
        (many_unresolved, True),
        (many_twice_quoted, True),
        (Callable1().many, True),
        (CallableMany(), True),
    ],
)
def test_what_a_handler_is_given(handler: Callable[..., object], batch: bool) -> None:
    assert batch_of(handler) is batch


async def coroutine(record: Record) -> None: ...
async def stream(record: Record) -> AsyncIterator[int]:
    yield 1


def generator(record: Record) -> Iterator[int]:
    yield 1


class CallableAsync:
    async def __call__(self, record: Record) -> None: ...


def nothing() -> None: ...
def two(record: Record, more: int) -> None: ...
def by_name(*, record: Record) -> None: ...
def a_number(record: int) -> None: ...
def a_sequence(records: Sequence[Record]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "sentence"),
    [
        (coroutine, "handler coroutine is async"),
        (functools.partial(coroutine), "is async"),
        (CallableAsync(), "is async"),
        (stream, "handler stream yields"),
        (generator, "handler generator yields"),
        (nothing, "handler nothing must take exactly one argument"),
        (two, "handler two must take exactly one argument"),
        (by_name, "handler by_name must take exactly one argument"),
        (a_number, "handler a_number takes int"),
        (a_sequence, "handler a_sequence takes Sequence"),
    ],
)
def test_handlers_that_would_never_work(handler: Callable[..., object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        batch_of(handler)


@pytest.mark.parametrize("concurrency", [0, -1])
def test_concurrency_is_at_least_one(concurrency: int) -> None:
    with pytest.raises(ConfigError, match="concurrency must be at least 1"):
        App().subscribe("orders", concurrency=concurrency)
