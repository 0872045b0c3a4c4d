"""What a handler wants to be given, read from its signature.

    def handle(record: Record)                    the record as it is
    def handle(order: Order)                      its value, decoded from JSON
    def handle(order: Order, record: Record)      both
    def handle(records: list[Record])             a batch of one partition; list[Order] likewise

each of them also as ``async def``. ``Order`` is a pydantic model, a dataclass, a TypedDict, a
dict, or a union of these.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock import arguments
from penstock.errors import ConfigError
from penstock.record import Record

Handler = Callable[..., object]

#: Values that JSON has, but that nobody means who writes them as a handler's annotation.
_NOT_DECODED = (bytes, bytearray, str, int, float, bool)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a handler takes. ``model`` is ``None`` for records as they are."""

    batch: bool = False
    asynchronous: bool = False
    model: Any = None
    #: Takes the record (or the records) as its second argument.
    with_record: bool = False


def kind_of(handler: Handler) -> Kind:
    """Read a handler's signature.

    Raises:
        ConfigError: it could never be called with what Penstock hands over.
    """
    if not callable(handler):
        raise ConfigError(
            f"@app.subscribe(…) is for a function, not for {arguments.shown(handler)}"
        )
    name = name_of(handler)
    call = handler.func if isinstance(handler, functools.partial) else handler
    if not inspect.isroutine(call):
        call = getattr(call, "__call__", call)  # noqa: B004 (an object's method has the annotations)
    if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
        raise ConfigError(f"handler {name} yields: nothing would ever run it")
    first, second = _parameters(handler, name)
    model, batch = _meant(_hint(call, name, first), name)
    if second is not None:
        wanted = list[Record] if batch else Record
        if model is None or _hint(call, name, second) not in (wanted, Any):
            raise ConfigError(
                f"handler {name}: a second argument gets the record of a decoded value, "
                f"so annotate it {'list[Record]' if batch else 'Record'}"
            )
    return Kind(
        batch=batch,
        asynchronous=inspect.iscoroutinefunction(call),
        model=model,
        with_record=second is not None,
    )


def name_of(handler: Handler) -> str:
    """A handler's name for people."""
    if isinstance(handler, functools.partial):
        return name_of(handler.func)
    return str(getattr(handler, "__qualname__", type(handler).__qualname__))


def _parameters(handler: Handler, name: str) -> tuple[inspect.Parameter, inspect.Parameter | None]:
    try:
        parameters = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):  # some that are written in C
        raise ConfigError(
            f"handler {name} does not tell what it takes: wrap it in a function"
        ) from None
    required = [
        p
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if not 1 <= len(required) <= 2 or any(p.kind is p.KEYWORD_ONLY for p in required):  # noqa: PLR2004
        raise ConfigError(
            f"handler {name} must take exactly one argument, the record (or two: a decoded "
            "value, and its record)"
        )
    return required[0], required[1] if len(required) > 1 else None


def _hint(call: Callable[..., object], name: str, parameter: inspect.Parameter) -> Any:
    """A parameter's annotation, resolved by itself: others, and the result's, do not matter."""
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return Any
    alone = types.SimpleNamespace(__annotations__={parameter.name: annotation})
    names = getattr(inspect.unwrap(call), "__globals__", {})
    try:
        return typing.get_type_hints(alone, names, include_extras=True)[parameter.name]
    except Exception as error:  # a name that is imported for type checkers only
        return _from_text(annotation, name, error)


def _from_text(annotation: object, name: str, error: Exception) -> Any:
    """``Record`` and ``list[Record]`` are understood without being resolved."""
    text = str(annotation).strip("'\"").removeprefix("typing.")
    batch = text.lower().startswith("list[")
    inner = (text[5:-1].strip("'\" ") if batch else text).split(".")[-1]
    if inner in ("Record", "Any", "object"):
        return list[Record] if batch else Record
    raise ConfigError(
        f"handler {name} takes {text}, which cannot be found ({error}): import it at run time, "
        "not under TYPE_CHECKING"
    )


def _meant(hint: Any, name: str) -> tuple[Any, bool]:
    """``(model, batch)`` for the annotation of the first argument."""
    if hint is list:
        return None, True
    if typing.get_origin(hint) is list:
        return _meant(typing.get_args(hint)[0], name)[0], True
    if hint in (Record, Any, object):
        return None, False
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union) and Record in typing.get_args(hint):
        return None, False
    if hint in _NOT_DECODED:
        raise ConfigError(
            f"handler {name} takes {hint.__name__}; annotate it Record and use record.value, or "
            "name a pydantic model, dataclass or TypedDict to have the value decoded from JSON"
        )
    if origin is not None and not _decodable_origin(origin):
        raise ConfigError(
            f"handler {name} takes {getattr(hint, '__name__', hint)}; Penstock hands over a "
            "Record, a list[Record], or a value decoded from JSON (pydantic model, dataclass, "
            "TypedDict), or a list of those"
        )
    return hint, False


def _decodable_origin(origin: Any) -> bool:
    return origin in (dict, types.UnionType, typing.Union, typing.Annotated) or (
        inspect.isclass(origin)
        and not issubclass(origin, (list, tuple, set, frozenset))
        and origin.__module__ != "collections.abc"
    )
