from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, Optional, TypedDict, TypeVar, Union

import pytest
from pydantic import BaseModel, Field

from penstock.errors import ConfigError
from penstock.record import Record
from penstock.signature import Kind, kind_of, name_of

if TYPE_CHECKING:
    from penstock.record import Record as Elsewhere

    class Absent(BaseModel):
        number: int


T = TypeVar("T")


class Model(BaseModel):
    number: int


@dataclass
class Data:
    number: int


class Typed(TypedDict):
    number: int


class Envelope(BaseModel, Generic[T]):
    content: T


Chosen = Annotated[Model | Data, Field(union_mode="left_to_right")]


def unannotated(record): ...  # type: ignore[no-untyped-def]
def one(record: Record) -> None: ...
def quoted(record: "Record") -> None: ...  # noqa: UP037 (people do)
def anything(record: Any) -> None: ...
def an_object(record: object) -> None: ...
def with_default(record: Record, retries: int = 3) -> None: ...
def with_rest(record: Record, *rest: Any, **more: Any) -> None: ...
def perhaps(record: Record | None) -> None: ...
def perhaps_optional(record: Optional[Record]) -> None: ...  # noqa: UP045 (people do)
def many(records: list[Record]) -> None: ...
def many_quoted(records: "list[Record]") -> None: ...  # noqa: UP037 (people do)
def plain_list(records: list) -> None: ...  # type: ignore[type-arg] # what people write
def many_of_anything(records: list[Any]) -> None: ...


class Callable1:
    def __call__(self, record: Record) -> None: ...

    def method(self, record: Record) -> None: ...

    def many(self, records: list[Record]) -> None: ...

    @staticmethod
    def static(record: Record) -> None: ...

    @classmethod
    def of_class(cls, records: list[Record]) -> None: ...


class CallableMany:
    def __call__(self, records: list[Record]) -> None: ...


ONE, MANY = Kind(), Kind(batch=True)


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (unannotated, ONE),
        (one, ONE),
        (quoted, ONE),
        (anything, ONE),
        (an_object, ONE),
        (with_default, ONE),
        (with_rest, ONE),
        (perhaps, ONE),
        (perhaps_optional, ONE),
        (lambda record: None, ONE),
        (functools.partial(with_default, retries=1), ONE),
        (Callable1(), ONE),
        (Callable1().method, ONE),
        (Callable1.static, ONE),
        ([].append, ONE),
        (many, MANY),
        (many_quoted, MANY),
        (plain_list, MANY),
        (many_of_anything, MANY),
        (Callable1().many, MANY),
        (Callable1.of_class, MANY),
        (CallableMany(), MANY),
    ],
)
def test_records_as_they_are(handler: Callable[..., object], kind: Kind) -> None:
    assert kind_of(handler) == kind


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        ("Record", ONE),
        ("penstock.Record", ONE),
        ("'Record'", ONE),
        ("typing.Any", ONE),
        ("list[Record]", MANY),
        ("'list[Record]'", MANY),
        ("list['Record']", MANY),
        ("typing.List[penstock.Record]", MANY),
        ("list[typing.Any]", MANY),
    ],
)
def test_record_is_understood_though_it_is_imported_for_type_checkers_only(
    annotation: str, kind: Kind
) -> None:
    names: dict[str, Any] = {}
    source = "from __future__ import annotations\n" if "'" not in annotation[:1] else ""
    exec(f"{source}def handle(records: {annotation}): ...", names)
    assert kind_of(names["handle"]) == kind


def model(order: Model) -> None: ...
def data(order: Data) -> None: ...
def typed(order: Typed) -> None: ...
def a_dict(order: dict[str, int]) -> None: ...
def a_plain_dict(order: dict) -> None: ...  # type: ignore[type-arg] # what people write
def union(order: Model | Data) -> None: ...
def old_union(order: Union[Model, Data]) -> None: ...  # noqa: UP007 (people do)
def perhaps_none(order: Model | None) -> None: ...
def annotated(order: Chosen) -> None: ...
def generic(order: Envelope[int]) -> None: ...
def unresolved_result(order: Model) -> Absent | None: ...
def unresolved_results(orders: list[Model]) -> list[Absent] | None: ...
def unresolved_default(order: Model, more: Absent | None = None) -> None: ...
def models(orders: list[Model]) -> None: ...
def perhaps_nones(orders: list[Model | None]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "decoded", "batch"),
    [
        (model, Model, False),
        (data, Data, False),
        (typed, Typed, False),
        (a_dict, dict[str, int], False),
        (a_plain_dict, dict, False),
        (union, Model | Data, False),
        (old_union, Model | Data, False),
        (perhaps_none, Model | None, False),
        (annotated, Chosen, False),
        (generic, Envelope[int], False),
        (unresolved_result, Model, False),
        (unresolved_results, Model, True),
        (unresolved_default, Model, False),
        (models, Model, True),
        (perhaps_nones, Model | None, True),
    ],
)
def test_values(handler: Callable[..., object], decoded: object, batch: bool) -> None:
    kind = kind_of(handler)
    assert kind.model == decoded
    assert (kind.batch, kind.asynchronous, kind.with_record) == (batch, False, False)


def model_and_record(order: Model, record: Record) -> None: ...
def model_and_anything(order: Model, record: Any) -> None: ...
def model_and_unannotated(order: Model, record): ...  # type: ignore[no-untyped-def]
def model_and_default(order: Model, record: Record, retries: int = 3) -> None: ...
def models_and_records(orders: list[Model], records: list[Record]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "batch"),
    [
        (model_and_record, False),
        (model_and_anything, False),
        (model_and_unannotated, False),
        (model_and_default, False),
        (models_and_records, True),
    ],
)
def test_values_with_their_records(handler: Callable[..., object], batch: bool) -> None:
    assert kind_of(handler) == Kind(batch=batch, model=Model, with_record=True)


async def coroutine(record: Record) -> None: ...
async def coroutine_of_models(orders: list[Model], records: list[Record]) -> None: ...


class CallableAsync:
    async def __call__(self, record: Record) -> None: ...

    async def method(self, order: Model) -> None: ...


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (coroutine, ONE),
        (functools.partial(coroutine), ONE),
        (CallableAsync(), ONE),
        (functools.partial(CallableAsync()), ONE),
        (CallableAsync().method, Kind(model=Model)),
        (coroutine_of_models, Kind(batch=True, model=Model, with_record=True)),
    ],
)
def test_coroutines(handler: Callable[..., object], kind: Kind) -> None:
    found = kind_of(handler)
    assert found.asynchronous
    assert (found.batch, found.model, found.with_record) == (
        kind.batch, kind.model, kind.with_record,
    )  # fmt: skip


async def stream(record: Record) -> AsyncIterator[int]:
    yield 1


def generator(record: Record) -> Iterator[int]:
    yield 1


class CallableGenerator:
    def __call__(self, record: Record) -> Iterator[int]:
        yield 1


def nothing() -> None: ...
def three(order: Model, record: Record, more: int) -> None: ...
def two_records(record: Record, other: Record) -> None: ...
def two(record: Record, more: int) -> None: ...
def model_and_number(order: Model, number: int) -> None: ...
def models_and_record(orders: list[Model], record: Record) -> None: ...
def model_and_records(order: Model, records: list[Record]) -> None: ...
def by_name(*, record: Record) -> None: ...
def only_rest(*records: Record) -> None: ...
def a_number(record: int) -> None: ...
def some_bytes(value: bytes) -> None: ...
def a_text(value: str) -> None: ...
def many_bytes(values: list[bytes]) -> None: ...
def a_sequence(records: Sequence[Record]) -> None: ...
def a_set(records: set[Record]) -> None: ...
def a_tuple(records: tuple[Record, ...]) -> None: ...
def a_function(call: Callable[[int], int]) -> None: ...
def unresolved(record: Elsewhere) -> None: ...
def many_unresolved(records: list[Elsewhere]) -> None: ...
def many_twice_quoted(records: "list[Elsewhere]") -> None: ...  # noqa: UP037 (people do)
def for_type_checkers_only(order: Absent) -> None: ...
def many_for_type_checkers_only(orders: list[Absent]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "sentence"),
    [
        (stream, "handler stream yields"),
        (generator, "handler generator yields"),
        (CallableGenerator(), "handler CallableGenerator yields"),
        (functools.partial(generator), "handler generator yields"),
        (nothing, "handler nothing must take exactly one argument"),
        (three, "handler three must take exactly one argument"),
        (only_rest, "handler only_rest must take exactly one argument"),
        (by_name, "handler by_name must take exactly one argument"),
        (two, "handler two: a second argument gets the record of a decoded value.* Record$"),
        (two_records, "handler two_records: a second argument"),
        (model_and_number, "handler model_and_number: a second argument"),
        (model_and_records, "handler model_and_records: a second argument .* it Record$"),
        (models_and_record, r"handler models_and_record: a second .* it list\[Record\]$"),
        (a_number, "handler a_number takes int; annotate it Record"),
        (some_bytes, "handler some_bytes takes bytes; annotate it Record and use record.value"),
        (a_text, "handler a_text takes str; annotate it Record"),
        (many_bytes, "handler many_bytes takes bytes; annotate it Record"),
        (a_sequence, "handler a_sequence takes Sequence"),
        (a_set, "handler a_set takes set"),
        (a_tuple, "handler a_tuple takes tuple"),
        (a_function, "handler a_function takes Callable"),
        # They might be anything, a model to be decoded among others.
        (unresolved, "takes Elsewhere, which cannot be found"),
        (many_unresolved, r"takes list\[Elsewhere\], which cannot be found"),
        (many_twice_quoted, r"takes list\[Elsewhere\], which cannot be found"),
        (for_type_checkers_only, "takes Absent, which cannot be found .* import it at run time"),
        (many_for_type_checkers_only, r"takes list\[Absent\], which cannot be found"),
    ],
)
def test_handlers_that_would_never_work(handler: Callable[..., object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        kind_of(handler)


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (one, "one"),
        (Callable1().method, "Callable1.method"),
        (Callable1(), "Callable1"),
        (functools.partial(functools.partial(with_default, retries=1)), "with_default"),
    ],
)
def test_names_for_people(handler: Callable[..., object], name: str) -> None:
    assert name_of(handler) == name
