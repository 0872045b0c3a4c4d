from __future__ import annotations

from typing import Any

import pytest

from penstock.app import App
from penstock.errors import ConfigError
from penstock.plan import plan


def app_with(*topics: str, subscriptions: int = 1, **options: Any) -> App:
    app = App(bootstrap_servers="broker:9092")
    for _ in range(subscriptions):
        app.subscribe(*topics, **options)(lambda record: None)
    return app


def test_the_code_s_values() -> None:
    made = plan(app_with("orders", "refunds", group="billing", concurrency=4))
    assert (made.topics, made.group, made.concurrency, made.batch) == (
        ("orders", "refunds"), "billing", 4, False,
    )  # fmt: skip


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TOPICS", "a,b"), ("GROUP_ID", "other"), ("CONCURRENCY", "2")):
        monkeypatch.setenv(f"PENSTOCK_{name}", value)
    made = plan(app_with("orders", group="billing", concurrency=4))
    assert (made.topics, made.group, made.concurrency) == (("a", "b"), "other", 2)


@pytest.mark.parametrize(
    ("app", "sentence"),
    [
        (app_with("orders", group="g", subscriptions=0), "the app has no handler"),
        (app_with("orders", group="g", subscriptions=2), "the app has 2 subscriptions"),
        (app_with(group="g"), "no topics: .*PENSTOCK_TOPICS"),
        (app_with("orders"), "no consumer group: set PENSTOCK_GROUP_ID"),
        (App(), "PENSTOCK_BOOTSTRAP_SERVERS is not set"),
        (App(bootstrap_servers="broker:9092", workes=2), r"App\(workes=…\).*workers"),
    ],
)
def test_what_is_missing_is_named(app: App, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        plan(app)
