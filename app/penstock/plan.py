"""What a worker is to do: the application's code with the settings applied to it.

Apart from :mod:`penstock.app`, so that ``import penstock`` stays quick: the client commands
run as exec hooks and need no settings.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock import settings as settings_module
from penstock.app import App, Handler
from penstock.errors import ConfigError
from penstock.settings import Settings


@dataclass(frozen=True, slots=True)
class Plan:
    """What a worker does: an app's subscription with the settings applied to it."""

    settings: Settings
    handler: Handler
    topics: tuple[str, ...]
    group: str
    concurrency: int
    batch: bool


def plan(app: App) -> Plan:
    """Combine the app's code with the environment.

    Raises:
        ConfigError: naming what is missing or wrong, and the remedy.
    """
    settings = settings_module.load(app.settings)
    if not app.subscriptions:
        raise ConfigError(
            'the app has no handler: decorate one with @app.subscribe("topic", group="name")'
        )
    if len(app.subscriptions) > 1:
        raise ConfigError(
            f"the app has {len(app.subscriptions)} subscriptions; this version runs one per "
            "app: give the others an app, and a service, of their own"
        )
    subscription = app.subscriptions[0]
    topics = settings.topics or subscription.topics
    if not topics:
        raise ConfigError("no topics: name them in @app.subscribe(…) or PENSTOCK_TOPICS")
    group = settings.group_id or subscription.group
    if not group:
        raise ConfigError("no consumer group: set PENSTOCK_GROUP_ID or subscribe(group=…)")
    return Plan(
        settings=settings,
        handler=subscription.handler,
        topics=topics,
        group=group,
        concurrency=settings.concurrency or subscription.concurrency,
        batch=subscription.batch,
    )
