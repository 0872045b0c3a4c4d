"""What a user's program is made of: an :class:`App` with handlers subscribed to topics."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

from penstock import arguments
from penstock.batching import Batch
from penstock.breaker import Breaker
from penstock.errors import ConfigError
from penstock.policy import DEATHS, MOST_DEATHS, Last, Retry, dead_letter, skip, stop
from penstock.signature import Handler, Kind, kind_of, name_of

H = TypeVar("H", bound=Handler)

_SUBSCRIBE: Final = "subscribe"
_A_GROUP: Final = "the name of a consumer group"


class Order(StrEnum):
    """What is handled one after another; everything else side by side."""

    PARTITION = "partition"
    KEY = "key"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Subscription:
    """A handler, what it reads, and how."""

    handler: Handler
    kind: Kind
    topics: tuple[str, ...]
    pattern: str | None
    group: str | None
    concurrency: int
    order: Order
    retry: Retry
    then: Last
    timeout: float | None
    breaker: Breaker | None
    batch: Batch
    deaths: int

    @property
    def name(self) -> str:
        """The handler's name."""
        return name_of(self.handler)


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
        self,
        *topics: str,
        pattern: str | None = None,
        group: str | None = None,
        concurrency: int = 1,
        order_by: str = Order.PARTITION,
        retry: Retry | None = None,
        then: Last | None = None,
        timeout: float | None = None,
        breaker: Breaker | None = None,
        batch: Batch | None = None,
        deaths: int = DEATHS,
    ) -> Callable[[H], H]:
        """Register a handler for ``topics``, or for all topics whose names match ``pattern``.

        ``group``: the consumer group, unless ``PENSTOCK_GROUP_ID`` is set.
        ``concurrency``: handlers at work at the same time in each worker, at most 1024.
        ``order_by``: what is handled one after another: the records of a ``partition``, those
        of a ``key`` within a partition, or ``none``.
        ``retry``, ``then``: what becomes of a record whose handler raised. Without them it is
        tried for ever, and one that can never succeed stops the service.
        ``timeout``: seconds that the handler may take; longer counts as having raised
        :class:`~penstock.errors.HandlerTimeout`.
        ``breaker``: pause, and try one record at a time, when too many fail.
        ``batch``: how large the lists of a ``list[…]`` handler are.
        ``deaths``: of its process, after which a record that was in flight each time is handled
        alone; if it kills again, it goes where ``then`` says.

        Raises:
            ConfigError: a handler or a combination that could never work.
        """
        group = None if group is None else arguments.text(_SUBSCRIBE, "group", group, _A_GROUP)
        arguments.whole(_SUBSCRIBE, "concurrency", concurrency, most=arguments.MOST_CONCURRENT)
        if timeout is not None:
            arguments.seconds(_SUBSCRIBE, "timeout", timeout)
        if retry is not None:
            arguments.instance(_SUBSCRIBE, "retry", retry, Retry, "retry=Retry(attempts=5)")
        if then is not None:
            arguments.instance(_SUBSCRIBE, "then", then, Last, _then_example(then))
        if breaker is not None:
            arguments.instance(_SUBSCRIBE, "breaker", breaker, Breaker, "breaker=Breaker()")
        if batch is not None:
            arguments.instance(_SUBSCRIBE, "batch", batch, Batch, "batch=Batch(count=500)")
        arguments.whole(_SUBSCRIBE, "deaths", deaths, most=MOST_DEATHS)
        order = _order(order_by)
        _check_topics(topics, pattern)

        def register(handler: H) -> H:
            kind = kind_of(handler)
            if batch is not None and not kind.batch:
                raise ConfigError(f"handler {name_of(handler)} takes no list: batch= is for those")
            if kind.batch and order is not Order.PARTITION:
                raise ConfigError(
                    f"handler {name_of(handler)} takes batches, which are of one partition, in "
                    f'its order: order_by="{order}" is for handlers of single records'
                )
            self.subscriptions.append(
                Subscription(
                    handler=handler,
                    kind=kind,
                    topics=topics,
                    pattern=pattern,
                    group=group,
                    concurrency=concurrency,
                    order=order,
                    retry=retry or Retry(),
                    then=then or stop(),
                    timeout=timeout,
                    breaker=breaker,
                    batch=batch or Batch(),
                    deaths=deaths,
                )
            )
            return handler

        return register


def _order(order_by: object) -> Order:
    if not isinstance(order_by, str) or order_by not in tuple(Order):
        names = ", ".join(f'"{o}"' for o in Order)
        arguments.refuse(_SUBSCRIBE, "order_by", order_by, f"one of {names}")
    return Order(order_by)


def _then_example(then: object) -> str:
    """How what was probably meant is written: ``then=skip`` forgot to call it."""
    if isinstance(then, str):
        topic = then if arguments.topic_problem(then) is None else "orders.dead"
        return f'then=dead_letter("{topic}"), then=skip() or then=stop()'
    if then is skip or then is stop:
        return f"then={then.__name__}()"
    if then is dead_letter:
        return 'then=dead_letter("orders.dead")'
    return 'then=dead_letter("…"), then=skip() or then=stop()'


def _check_topics(topics: tuple[str, ...], pattern: str | None) -> None:
    given: tuple[object, ...] = topics  # what people write is not always what is annotated
    for topic in given:
        if not isinstance(topic, str):
            hint = ": write @app.subscribe(…)" if callable(topic) else ""
            raise ConfigError(f"subscribe takes topic names, not {arguments.shown(topic)}{hint}")
        if (problem := arguments.topic_problem(topic)) is not None:
            raise ConfigError(f"subscribe(…): {problem}")
    if pattern is None:
        return
    if topics:
        raise ConfigError("subscribe takes either topics or pattern=, not both")
    arguments.text(_SUBSCRIBE, "pattern", pattern, "the text of a regular expression")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"pattern={pattern!r} is not a regular expression: {error}") from error
