from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import cgroup, configuration
from penstock.cgroup import Cgroup, Reading
from penstock.errors import ConfigError

HEAD = """
from penstock import App, Record, Retry, dead_letter
app = App(bootstrap_servers="kafka:9092")
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path / "checked_shop.py"
    sys.modules.pop("checked_shop", None)


def subscribed(shop: Path, *options: str) -> str:
    handlers = [
        f"@app.subscribe('orders-{n}', group='g{n}', {given})\ndef bill_{n}(record: Record): ...\n"
        for n, given in enumerate(options)
    ]
    shop.write_text(HEAD + "".join(handlers))
    return "checked_shop:app"


def test_several_subscriptions_are_told_in_turn(shop: Path) -> None:
    found = {
        name: (value, source)
        for name, value, source in configuration.rows(subscribed(shop, "concurrency=4", ""))
    }
    assert found["PENSTOCK_GROUP_ID"] == ("g0; g1", "code")
    assert found["PENSTOCK_TOPICS"] == ("orders-0; orders-1", "code")
    assert found["PENSTOCK_CONCURRENCY"] == ("4; 1", "code")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", []),
        ("timeout=22", []),
        ("timeout=22.5", ["bill_0 may take 22.5 s .* gives it 22: .*PENSTOCK_DRAIN_TIMEOUT"]),
        ("retry=Retry(attempts=3)", ["bill_0 stops the service .* failed 3 times: name then="]),
        ("retry=Retry(attempts=3), then=dead_letter('dead')", []),
    ],
)
def test_what_is_perhaps_not_meant(shop: Path, options: str, said: list[str]) -> None:
    found = configuration.notes(subscribed(shop, options))
    assert len(found) == len(said)
    for note, pattern in zip(found, said, strict=True):
        assert re.search(pattern, note), note


def test_a_time_limit_beyond_liveness_is_refused(shop: Path) -> None:
    with pytest.raises(ConfigError, match=r"bill_0 has timeout=300.*PENSTOCK_HANDLER_TIMEOUT"):
        configuration.rows(subscribed(shop, "timeout=300"))


@pytest.mark.parametrize(("limit", "enough"), [(512, True), (400, False), (None, True)])
def test_a_limit_that_is_too_low_for_what_may_be_buffered(
    shop: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None, enough: bool
) -> None:
    """Two subscriptions: two workers of 224 MB."""
    reading = Reading(None if limit is None else limit * 1_000_000, 50_000_000)
    monkeypatch.setattr(cgroup, "find", lambda: Cgroup(2, Path("/sys/fs/cgroup")))
    monkeypatch.setattr(Cgroup, "read", lambda _: reading)
    monkeypatch.setenv("PENSTOCK_BUFFER_BYTES", "40000000")
    monkeypatch.setenv("PENSTOCK_FETCH_BYTES", "4000000")
    target = subscribed(shop, "", "")
    told = "supervisor 64 + 2 x (base 64 + buffer 40 + fetch 20 + handlers 64) = 441 MB"
    assert configuration.memory(target) == told
    sentence = (
        f"memory: {told} / 0.9 (PENSTOCK_MEMORY_HIGH) = 490 MB, and the limit is 400 MB: raise "
        "it, or lower PENSTOCK_WORKERS, PENSTOCK_BUFFER_BYTES or PENSTOCK_FETCH_BYTES"
    )
    assert configuration.notes(target) == ([] if enough else [sentence])


def test_objects_of_the_code_are_shown_by_their_class(shop: Path) -> None:
    target = subscribed(shop, "")
    settings = (
        'app = App(bootstrap_servers="kafka:9092", security_protocol="SSL", '
        'kafka_options={"ssl_context": ssl.create_default_context(), "proxy_url": "http://p:9"})'
    )
    text = shop.read_text().replace('app = App(bootstrap_servers="kafka:9092")', settings)
    shop.write_text(f"import ssl\n{text}")
    found = {name: value for name, value, _ in configuration.rows(target)}
    shown = '{"ssl_context": "<SSLContext>", "proxy_url": "********"}'
    assert found["PENSTOCK_KAFKA_OPTIONS"] == shown
