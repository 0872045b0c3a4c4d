"""What the workers are to do: the application's code with the settings applied to it.

Apart from :mod:`penstock.app`, so that ``import penstock`` stays quick: the client commands
run as exec hooks and need no settings.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from penstock import settings as settings_module
from penstock.app import App, Order, Subscription
from penstock.batching import Batch
from penstock.decoding import caller
from penstock.errors import ConfigError
from penstock.policy import Policy, Then
from penstock.settings import Settings
from penstock.signature import Handler, Kind


@dataclass(frozen=True, slots=True)
class Plan:
    """What one worker does: a subscription with the settings applied to it.

    ``topics`` is empty when ``pattern`` names them.
    """

    settings: Settings
    handler: Handler
    kind: Kind
    topics: tuple[str, ...]
    pattern: str | None
    group: str
    concurrency: int
    order: Order
    policy: Policy
    batch: Batch
    #: The handler's name.
    name: str = "handler"

    @property
    def reads(self) -> str:
        """The topics, or the pattern, for people."""
        return ", ".join(self.topics) if self.topics else f"/{self.pattern}/"


def plans(app: App) -> tuple[Plan, ...]:
    """Combine the app's code with the environment: a plan for each subscription, in order.

    Raises:
        ConfigError: naming what is missing or wrong, and the remedy.
    """
    settings = settings_module.load(app.settings)
    if not app.subscriptions:
        raise ConfigError(
            'the app has no handler: decorate one with @app.subscribe("topic", group="name")'
        )
    if len(app.subscriptions) > 1:
        for name, value in (
            ("PENSTOCK_TOPICS", settings.topics),
            ("PENSTOCK_GROUP_ID", settings.group_id),
        ):
            if value:
                raise ConfigError(
                    f"{name} is set, but the app has {len(app.subscriptions)} subscriptions, and "
                    "it cannot tell which is meant: name topics and groups in the code"
                )
    found = tuple(_plan(subscription, settings) for subscription in app.subscriptions)
    for one, other in itertools.combinations(found, 2):
        if one.group == other.group and (shared := _shared(one, other)) is not None:
            raise ConfigError(
                f"handlers {one.name} and {other.name} both read {shared} in group "
                f"{one.group!r}, so each would be given only a part of its records: name another "
                "group for one of them"
            )
    return found


def _shared(one: Plan, other: Plan) -> str | None:
    """What both read, as far as it can be known before there is a cluster; else ``None``."""
    for name in sorted({*one.topics, *other.topics}):
        if _reads(one, name) and _reads(other, name):
            return repr(name)
    same = one.pattern is not None and one.pattern == other.pattern
    return one.reads if same else None


def _reads(plan: Plan, topic: str) -> bool:
    if plan.pattern is None:
        return topic in plan.topics
    return re.fullmatch(plan.pattern, topic) is not None


def _plan(subscription: Subscription, settings: Settings) -> Plan:
    topics = settings.topics or subscription.topics
    pattern = None if settings.topics else subscription.pattern
    if not topics and pattern is None:
        raise ConfigError("no topics: name them in @app.subscribe(…) or PENSTOCK_TOPICS")
    group = settings.group_id or subscription.group
    if not group:
        raise ConfigError("no consumer group: set PENSTOCK_GROUP_ID or subscribe(group=…)")
    caller(subscription.handler, subscription.kind)  # raises what a worker would find out late
    dead = subscription.then.topic if subscription.then.then is Then.DEAD_LETTER else None
    if dead and (dead in topics or (pattern is not None and re.fullmatch(pattern, dead))):
        raise ConfigError(
            f"handler {subscription.name} reads {dead!r} and would put its "
            "dead letters there, to read them again: name another topic"
        )
    if subscription.timeout is not None and subscription.timeout >= settings.handler_timeout:
        raise ConfigError(
            f"handler {subscription.name} has timeout={subscription.timeout:g}, which is never "
            f"reached: PENSTOCK_HANDLER_TIMEOUT ({settings.handler_timeout:g} s) fails liveness "
            "first and must be longer"
        )
    return Plan(
        settings=settings,
        handler=subscription.handler,
        kind=subscription.kind,
        topics=topics,
        pattern=pattern,
        group=group,
        concurrency=settings.concurrency or subscription.concurrency,
        order=subscription.order,
        policy=Policy(
            retry=subscription.retry,
            then=subscription.then,
            backoff=subscription.retry.backoff(
                first=settings.retry_first, limit=settings.retry_limit
            ),
            timeout=subscription.timeout,
            breaker=subscription.breaker,
            deaths=subscription.deaths,
        ),
        batch=subscription.batch,
        name=subscription.name,
    )
