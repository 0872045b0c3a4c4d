"""What the pages say in code, figures, log lines and links is so."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from devtools import docs
from penstock import App, Breaker, Record, Retry, dead_letter, offset_map
from penstock.plan import plans
from penstock.settings import Settings, env_name
from penstock.telemetry import catalog
from penstock.testing import Kit

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
OURS = [docs.ROOT / "docs" / f"{n}.md" for n in ("handlers", "failures", "ordering", "testing")]
WITH_CODE = [path for path in docs.files() if _BLOCK.search(path.read_text())]


def ids(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", WITH_CODE, ids=ids)
def test_code_on_the_pages_runs(path: Path) -> None:
    """The blocks of a page, one after another; then whatever tests they define."""
    page: dict[str, Any] = {"__name__": path.stem}
    for block in _BLOCK.finditer(path.read_text()):
        line = path.read_text()[: block.start(1)].count("\n")
        source = "\n" * line + block[1]
        exec(compile(source, path, "exec", dont_inherit=True), page)
    tests = [value for name, value in page.items() if name.startswith("test_")]
    assert len(tests) == path.read_text().count("\ndef test_")
    for test in tests:
        for value in range(5) if inspect.signature(test).parameters else [None]:
            test() if value is None else test(value)


@pytest.mark.parametrize("path", OURS, ids=ids)
def test_applications_on_the_pages_are_possible(path: Path) -> None:
    page: dict[str, Any] = {}
    for block in _BLOCK.finditer(path.read_text()):
        exec(block[1], page)
    apps = [value for value in page.values() if isinstance(value, App)]
    assert apps
    for app in apps:
        app.settings["bootstrap_servers"] = "localhost:9092"
        assert plans(app)


@pytest.mark.parametrize("path", OURS, ids=ids)
def test_links_to_headings_lead_to_one(path: Path) -> None:
    for target, anchor in re.findall(r"\]\(([\w.-]*)#([\w-]+)\)", path.read_text()):
        other = (path.parent / (target or path.name)).read_text()
        headings = re.findall(r"^#+ (.+)$", other, re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
        assert anchor in slugs, f"{path.name} links to {target}#{anchor}"


@pytest.mark.parametrize("path", OURS, ids=ids)
def test_settings_and_metrics_on_the_pages_exist(path: Path) -> None:
    settings = {env_name(field) for field in Settings.model_fields}
    metrics = {metric.name for metric in catalog.METRICS}
    text = path.read_text()
    assert set(re.findall(r"PENSTOCK_[A-Z_]*[A-Z]", text)) <= settings
    assert set(re.findall(r"\bpenstock_\w+", text)) <= metrics


def test_log_lines_on_the_page_are_logged() -> None:
    sources = "".join(p.read_text() for p in (docs.ROOT / "app/penstock/worker").glob("*.py"))
    lines = re.findall(r"^\| `([a-z][^`]+ [^`]+)` \|", OURS[1].read_text(), re.MULTILINE)
    assert len(lines) > 5
    for line in lines:
        assert f'"{line}"' in sources, line


def test_the_bounds_of_the_offset_map_are_those_on_the_page() -> None:
    text = OURS[2].read_text()
    assert text.count(f"{offset_map.SPAN:,} offsets") == text.count(" offsets ") == 2
    assert f"{offset_map.LIMIT:,} bytes" in text
    assert f"{offset_map.ALWAYS} records" in " ".join(text.split())


@pytest.mark.parametrize(
    ("partitions", "window", "said"),
    [
        (20, 20, "a worker with 20 partitions puts nothing aside"),
        (1, 20, "one with a single partition {} records"),
        (1, 5, "with a window of 5 it is {}"),
    ],
)
def test_what_an_outage_of_an_hour_costs_is_on_the_page(
    partitions: int, window: int, said: str
) -> None:
    app = App()

    @app.subscribe(
        "orders",
        group="billing",
        retry=Retry(attempts=5),
        then=dead_letter("orders.dead"),
        breaker=Breaker(window=window),
    )
    def bill(record: Record) -> None:
        if kit.now < 3600:
            raise ConnectionError

    kit = Kit(app)
    for number in range(400):
        kit.send("orders", b"", partition=number % partitions)
    kit.run()
    lost = len(kit.dead_letters())
    assert (lost == 0) is ("nothing" in said)
    assert said.format(lost) in " ".join(OURS[1].read_text().split())
