"""From a record to what the handler is given. Bytes in, a value or :class:`Undecodable` out."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from penstock.error_text import name_of as class_of
from penstock.errors import ConfigError, Undecodable
from penstock.record import Record
from penstock.signature import Handler, Kind, name_of

Decode = Callable[[Record], Any]


def decoder(model: Any, name: str) -> Decode:
    """A function that decodes a record's value (JSON, RFC 8259) and checks it against ``model``.

    A record without a value (a tombstone) is ``None`` for a model that allows it, as
    ``Order | None`` does, and undecodable for others.

    Raises:
        ConfigError: pydantic cannot make a decoder for the annotation.
    """
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 (`import penstock` is quick)

    try:
        validate = TypeAdapter(model).validate_json
    except Exception as error:  # pydantic has a dozen of them
        text = str(error).splitlines()[0]
        raise ConfigError(f"handler {name}: values cannot be decoded to {model}: {text}") from error
    shown = getattr(model, "__name__", str(model))

    def decode(record: Record) -> Any:
        value = record.value
        try:
            return validate(b"null" if value is None else value)
        except ValidationError as error:
            if value is None:
                raise Undecodable(
                    f"{record} has no value (a tombstone): annotate `{shown} | None` to take it"
                ) from None
            # Not "from error": pydantic's own text shows values, and tracebacks are kept.
            raise Undecodable(f"{record} is not {_article(shown)}: {_problems(error)}") from None

    return decode


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _problems(error: Any) -> str:
    """What is wrong, in one line; where, but not the values: they may be confidential."""
    try:
        found = error.errors(include_url=False, include_input=False)
    except Exception as raised:  # the text of what a validator raised
        return f"its validator cannot say why ({class_of(raised)})"
    said = [f"{'.'.join(map(str, e['loc'])) or 'value'}: {_message(e)}" for e in found[:3]]
    more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""  # noqa: PLR2004
    return "; ".join(said) + more


def _message(problem: Any) -> str:
    """pydantic's, whose only one that shows a part of the value is the one of a union's tag."""
    if problem["type"] == "union_tag_invalid":
        found = problem["ctx"]
        return f"{found['discriminator']} is none of {found['expected_tags']}"
    return str(problem["msg"])


def caller(handler: Handler, kind: Kind) -> Callable[[Any], Any]:
    """The handler as a function of a :class:`Record`, or of a list of them for a batch.

    What it returns is the handler's result: a coroutine if it is asynchronous.
    """
    if kind.model is None:
        return handler
    decode = decoder(kind.model, name_of(handler))
    if not kind.batch:
        if kind.with_record:
            return lambda record: handler(decode(record), record)
        return lambda record: handler(decode(record))

    def decode_all(records: list[Record]) -> list[Any]:
        values = []
        for index, record in enumerate(records):
            try:
                values.append(decode(record))
            except Undecodable as error:
                error.index = index
                raise
        return values

    if kind.with_record:
        return lambda records: handler(decode_all(records), records)
    return lambda records: handler(decode_all(records))


def check_result(result: object) -> None:
    """What a plain function returns does not matter, unless it is work that nobody would do.

    A decorator that knows nothing of ``async def`` hides it from :mod:`penstock.signature`.

    Raises:
        TypeError: it is awaitable: the handler has not run, so its record is not done.
    """
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(
            "the handler returned a coroutine, and nothing awaits it: a decorator hides that it "
            "is `async def`; have it return an `async def` itself"
        )
