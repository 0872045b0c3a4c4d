"""What a user's program is made of: an :class:`App` with a handler subscribed to topics."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from penstock.errors import ConfigError
from penstock.record import Record

Handler = Callable[[Any], object]
H = TypeVar("H", bound=Handler)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A handler and what it reads.

    ``batch``: the handler takes a ``list[Record]`` (records of one partition, in order)
    instead of one ``Record``.
    """

    handler: Handler
    topics: tuple[str, ...]
    group: str | None
    concurrency: int
    batch: bool


class App:
    """A Kafka consumer that can be restarted on purpose.

    Keyword arguments are settings (see ``penstock check``); ``PENSTOCK_*`` in the
    environment wins over them::

        app = App(drain_timeout=60)

        @app.subscribe("orders", group="billing")
        def bill(record: Record) -> None:
            ...  # return = done, raise = not done
    """

    def __init__(self, **settings: Any) -> None:
        self.settings: dict[str, Any] = settings
        self.subscriptions: list[Subscription] = []

    def subscribe(
        self, *topics: str, group: str | None = None, concurrency: int = 1
    ) -> Callable[[H], H]:
        """Register a handler for ``topics``.

        ``group``: the consumer group, unless ``PENSTOCK_GROUP_ID`` is set.
        ``concurrency``: handler threads in each worker. Records of one partition are
        handled one after the other; threads work on different partitions.

        Raises:
            ConfigError: an ``async`` handler, or one that does not take one argument.
        """
        if concurrency < 1:
            raise ConfigError(f"concurrency must be at least 1, got {concurrency}")

        def register(handler: H) -> H:
            self.subscriptions.append(
                Subscription(handler, topics, group, concurrency, _takes_batch(handler))
            )
            return handler

        return register


def _takes_batch(handler: Handler) -> bool:
    """Whether the handler's one argument is annotated ``list[Record]``."""
    name = getattr(handler, "__qualname__", repr(handler))
    call = handler if inspect.isroutine(handler) else getattr(handler, "__call__", handler)  # noqa: B004 (an object's method has the annotations)
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call):
        raise ConfigError(f"handler {name} is async; this version runs plain functions")
    if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
        raise ConfigError(f"handler {name} yields: nothing would ever run it")
    required = [
        p
        for p in inspect.signature(handler).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(required) != 1 or required[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise ConfigError(f"handler {name} must take exactly one argument, the record")
    try:
        hint = typing.get_type_hints(call).get(required[0].name, Record)
    except Exception:  # imported for type checkers only: its text still tells a list
        text = str(required[0].annotation).strip("'\"").removeprefix("typing.").lower()
        return text == "list" or text.startswith("list[")
    origin = typing.get_origin(hint)
    if origin is list:
        return True
    if hint in (Record, Any, object) or origin in (types.UnionType, typing.Union):
        return False
    if hint is list:
        return True
    raise ConfigError(
        f"handler {name} takes {getattr(hint, '__name__', hint)}; this version hands over "
        "Record or list[Record]"
    )
