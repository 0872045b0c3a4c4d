from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
import traceback
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from penstock.decoding import caller, check_result, decoder
from penstock.errors import ConfigError, Poison, Undecodable
from penstock.record import Record
from penstock.signature import kind_of


class Order(BaseModel):
    number: int
    cents: Annotated[int, Field(ge=0)] = 0


@dataclass
class Data:
    number: int


class Typed(TypedDict):
    number: int


class Old(typing.TypedDict):
    number: int


class Odd:
    pass


def takes_odd(given: Odd) -> None: ...


class Paid(BaseModel):
    kind: Literal["paid"]
    cents: int


class Sent(BaseModel):
    kind: Literal["sent"]
    to: str


def record(value: bytes | None, offset: int = 7) -> Record:
    return Record("orders", 3, offset, 0, b"k", value, ())


@pytest.mark.parametrize(
    ("model", "value", "decoded"),
    [
        (Order, b'{"number": 1}', Order(number=1)),
        (Order, b' {"number": "1", "more": 2}\n', Order(number=1)),  # as pydantic sees it
        (Data, b'{"number": 1}', Data(1)),
        (Typed, b'{"number": 1}', {"number": 1}),
        (dict, b'{"any": [1, null]}', {"any": [1, None]}),
        (dict[str, int], b'{"a": 1}', {"a": 1}),
        (Paid | Sent, b'{"kind": "sent", "to": "me"}', Sent(kind="sent", to="me")),
        (Order | None, b'{"number": 1}', Order(number=1)),
        (Order | None, None, None),
        (Order | None, b"null", None),
    ],
)
def test_values_are_decoded(model: Any, value: bytes | None, decoded: object) -> None:
    found = decoder(model, "bill")(record(value))
    assert found == decoded
    assert type(found) is type(decoded)


@pytest.mark.parametrize(
    ("model", "value", "sentence"),
    [
        (Order, b'{"cents": 3}', "orders[3]@7 is not an Order: number: Field required"),
        (Order, b'{"number": 1, "cents": -5}', "is not an Order: cents: Input should be greater"),
        (Typed, b'{"number": "x"}', "is not a Typed: number: Input should be a valid integer"),
        (Order, b"", "is not an Order: value: Invalid JSON"),
        (Order, b"\xff\xfe", "is not an Order: value: Invalid JSON"),
        (Order, b"[1]", "is not an Order: value: Input should be an object"),
        (Order, b"null", "is not an Order: value: Input should be an object"),
        (Order, None, "orders[3]@7 has no value (a tombstone): annotate `Order | None` to take it"),
    ],
)
def test_what_does_not_fit_is_poison_and_says_where(
    model: Any, value: bytes | None, sentence: str
) -> None:
    with pytest.raises(Undecodable) as caught:
        decoder(model, "bill")(record(value))
    assert sentence in str(caught.value)
    assert isinstance(caught.value, Poison)
    assert "\n" not in str(caught.value)


def test_of_many_problems_three_are_told() -> None:
    class Many(BaseModel):
        a: int
        b: int
        c: int
        d: int
        e: int

    with pytest.raises(Undecodable, match=r"a: .*; b: .*; c: [^;]*\(and 2 more\)$"):
        decoder(Many, "bill")(record(b"{}"))


@given(st.text("secret", min_size=6))
def test_the_value_is_never_told(secret: str) -> None:
    """Errors go to logs and into headers, which others may read."""
    value = b'{"number": "' + secret.encode() + b'", "cents": "' + secret.encode() + b'"}'
    with pytest.raises(Undecodable) as caught:
        decoder(Order, "bill")(record(value))
    assert secret not in str(caught.value)
    told = "".join(traceback.format_exception(caught.value))  # goes into the letter
    assert secret not in told
    assert "pydantic" not in told


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


def test_a_tag_of_no_member_is_not_told_either() -> None:
    pet = Annotated[Cat | Dog, Field(discriminator="kind")]
    with pytest.raises(Undecodable, match="'kind' is none of 'cat', 'dog'") as caught:
        decoder(pet, "feed")(record(b'{"kind": "hunter2"}'))
    assert "hunter2" not in str(caught.value)


@given(st.binary(max_size=60))
def test_no_value_does_anything_but_decode_or_not(value: bytes) -> None:
    with contextlib.suppress(Undecodable):
        assert isinstance(decoder(Order, "bill")(record(value)), Order)


def test_an_annotation_without_a_decoder_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"takes_odd: values cannot be decoded to .*Odd"):
        caller(takes_odd, kind_of(takes_odd))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic takes typing's from 3.12 on")
def test_the_typed_dict_that_pydantic_does_not_take_is_named() -> None:
    with pytest.raises(ConfigError, match=r"use `typing_extensions\.TypedDict` instead"):
        decoder(Old, "bill")


GIVEN: list[tuple[Any, ...]] = []


def takes_record(record: Record) -> None:
    GIVEN.append((record,))


def takes_model(order: Order) -> None:
    GIVEN.append((order,))


def takes_both(order: Order, record: Record) -> None:
    GIVEN.append((order, record))


async def takes_both_later(order: Order, record: Record) -> None:
    GIVEN.append((order, record))


RECORD = record(b'{"number": 1}')


@pytest.mark.parametrize(
    ("handler", "given"),
    [
        (takes_record, (RECORD,)),
        (takes_model, (Order(number=1),)),
        (takes_both, (Order(number=1), RECORD)),
        (takes_both_later, (Order(number=1), RECORD)),
    ],
)
def test_a_handler_is_given_what_it_takes(
    handler: Callable[..., object], given: tuple[Any, ...]
) -> None:
    GIVEN.clear()
    result = caller(handler, kind_of(handler))(RECORD)
    if inspect.iscoroutine(result):
        asyncio.run(result)
    [call] = GIVEN
    assert call == given


def takes_records(records: list[Record]) -> None:
    GIVEN.append((records,))


def takes_models(orders: list[Order]) -> None:
    GIVEN.append((orders,))


def takes_all(orders: list[Order], records: list[Record]) -> None:
    GIVEN.append((orders, records))


@pytest.mark.parametrize("handler", [takes_records, takes_models, takes_all])
def test_a_batch_likewise(handler: Callable[..., object]) -> None:
    GIVEN.clear()
    records = [record(b'{"number": %d}' % n, n) for n in range(3)]
    orders = [Order(number=n) for n in range(3)]
    caller(handler, kind_of(handler))(records)
    [call] = GIVEN
    expected = {takes_records: (records,), takes_models: (orders,), takes_all: (orders, records)}
    assert call == expected[handler]


@pytest.mark.parametrize("handler", [takes_models, takes_all])
def test_a_batch_names_the_one_that_does_not_fit(handler: Callable[..., object]) -> None:
    GIVEN.clear()
    values = [b'{"number": 1}', b'{"number": 2}', b"no", b"nor this"]
    with pytest.raises(Undecodable) as caught:
        caller(handler, kind_of(handler))([record(v, n) for n, v in enumerate(values)])
    assert caught.value.index == 2
    assert "orders[3]@2 is not an Order" in str(caught.value)
    assert GIVEN == []


async def later() -> None: ...


def test_what_a_handler_returns_does_not_matter_unless_nobody_would_run_it() -> None:
    results: list[object] = [None, 3, "text", iter([3]), [later]]
    for result in results:
        check_result(result)
    with pytest.raises(TypeError, match="returned a coroutine, and nothing awaits it"):
        check_result(later())

    async def in_a_loop() -> None:
        future = asyncio.get_running_loop().create_future()
        with pytest.raises(TypeError):
            check_result(future)
        future.cancel()

    asyncio.run(in_a_loop())
