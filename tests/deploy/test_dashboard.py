"""The dashboard: every query names what we export, Prometheus takes it, and it shows something."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devtools import dashboard
from devtools.broker import Broker
from devtools.load import Ledger, Load
from devtools.prometheus import Prometheus
from devtools.service import Service
from penstock.exits import Exit
from penstock.lifecycle import ORDER
from penstock.telemetry import catalog
from tests.deploy.rules import reading
from tests.deploy.rules.reading import ANCHOR

Tool = Callable[[str], Path]

BOARD: dict[str, Any] = json.loads(dashboard.PATH.read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel, target) for panel in PANELS for target in panel["targets"]]
MARKS = BOARD["annotations"]["list"]
QUERIES = [target["expr"] for _, target in TARGETS] + [mark["expr"] for mark in MARKS]

#: Counted for a moment before the process ends, so that hardly a scrape ever sees it.
NOT_SHOWN = {catalog.RESTART_REQUESTS.name}


def filled(query: str, window: str = "5m") -> str:
    """The query as Grafana would send it, with everything chosen."""
    for name, value in {
        "$__rate_interval": window,
        "$__range": "1h",
        "$namespace": ".*",
        "$pod": ".*",
    }.items():
        query = query.replace(name, value)
    assert "$" not in query
    return query


def test_the_file_is_what_the_description_makes() -> None:
    assert dashboard.PATH.read_text() == dashboard.rendered(), "python -m devtools.dashboard"


def test_every_selector_is_scoped_to_what_is_chosen() -> None:
    found = [selector for query in QUERIES for selector in reading.selectors(query)]
    assert len(found) > 30
    for selector in found:
        if selector.names != ("ALERTS",):
            assert selector.text.partition("{")[2].startswith(dashboard.SCOPE), selector.text
            assert selector.anchored


def test_every_metric_and_label_is_exported() -> None:
    own = reading.own_labels()
    for query in QUERIES:
        exported = set(reading.TARGET)
        for selector in reading.selectors(query):
            for name in selector.names:
                assert name in own or name == "ALERTS", query
                exported |= own.get(name, set())
                for label, operator, value in selector.matchers:
                    if name != "ALERTS":
                        assert label in own[name] | reading.TARGET, selector.text
                    known = reading.known_values(name, label)
                    if known is not None and operator == "=":
                        assert value in known, selector.text
        for clause in re.findall(r"\b(?:by|ignoring|on) \(([\w, ]*)\)", query):
            assert set(clause.split(", ")) <= exported, query


def test_legends_name_labels_that_the_query_leaves() -> None:
    for panel, target in TARGETS:
        left = {
            label
            for clause in re.findall(r"\bby \(([\w, ]*)\)", target["expr"])
            for label in clause.split(", ")
        }
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= left, panel["title"]


def test_everything_we_export_is_shown() -> None:
    text = "\n".join(QUERIES)
    missing = {metric.name for metric in catalog.METRICS if metric.name not in text}
    assert missing == NOT_SHOWN


def test_prometheus_takes_every_query(tool: Tool, tmp_path: Path) -> None:
    rules = tmp_path / "queries.yaml"
    recorded = [
        {"record": f"query:{number}", "expr": filled(query)} for number, query in enumerate(QUERIES)
    ]
    rules.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": recorded}]}))
    done = subprocess.run(
        [tool("promtool"), "check", "rules", rules], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(QUERIES)} rules found" in done.stdout


def test_variables_come_from_what_is_there() -> None:
    source, *others = BOARD["templating"]["list"]
    assert (source["type"], source["query"]) == ("datasource", "prometheus")
    assert [variable["name"] for variable in others] == ["namespace", "pod"]
    for variable in others:
        query = variable["query"]["query"]
        (selector,) = reading.selectors(query)
        assert selector.names == (catalog.BUILD_INFO.name,)
        assert ANCHOR in query
        assert query.endswith(f", {variable['name']})")
        # A target without the label is there, too: "all" must not hide it.
        assert (variable["includeAll"], variable["allValue"]) == (True, ".*")


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: str(panel["title"]))
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 15
    assert panel["fieldConfig"]["defaults"]["unit"]
    sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
    assert all(source["uid"] == "${datasource}" for source in sources)


def test_seconds_are_shown_as_seconds() -> None:
    for panel, target in TARGETS:
        measured = re.search(r"_seconds(?!_count\b)(?!.*timestamp)", target["expr"])
        if measured and "timestamp" not in target["expr"]:
            assert panel["fieldConfig"]["defaults"]["unit"] == "s", panel["title"]


def test_panels_fill_the_page_without_overlap() -> None:
    assert BOARD["schemaVersion"] == dashboard.SCHEMA_VERSION
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]),
                range(place["y"], place["y"] + place["h"]),
            )
        )
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells


def test_states_have_names_and_numbers() -> None:
    (panel,) = (panel for panel in PANELS if panel["type"] == "state-timeline")
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    assert {number: word["text"] for number, word in mapping["options"].items()} == {
        str(number): str(state) for number, state in enumerate(ORDER)
    }
    for number, state in enumerate(ORDER):
        assert f'state="{state}"}} == 1) * {number}' in panel["targets"][0]["expr"]


def test_exits_are_marked_where_they_happened() -> None:
    for mark, planned in zip(MARKS, ("true", "false"), strict=True):
        assert mark["useValueForTime"]
        assert f'planned="{planned}"' in mark["expr"]
        assert mark["expr"].endswith("* 1000")  # Grafana counts in milliseconds
        fields = set(re.findall(r"\{\{(\w+)\}\}", mark["titleFormat"] + mark["textFormat"]))
        assert fields <= set(catalog.LAST_EXIT_INFO.labels) | reading.TARGET


def test_a_real_service_fills_every_panel(
    tool: Tool,
    make_service: Callable[..., Service],
    broker: Broker,
    topic: str,
    group: str,
    tmp_path: Path,
) -> None:
    service = make_service(bootstrap_servers=broker.bootstrap, topics=topic, group_id=group)
    service.start().until_ready()
    load = Load(service, Ledger(tmp_path / "ledger"), broker.bootstrap, partitions=12, rate=100)
    labels = {"namespace": "shop", "pod": "orders-0", "container": "penstock"}
    with Prometheus(tool("prometheus"), tmp_path / "p", {service.port: labels}) as seen:
        seen.until(lambda: seen.value("penstock_unplanned_exits_total") == 0, "a first scrape")
        try:
            load.start()
            assert service.stop(signal.SIGUSR2) == Exit.RESTART
            service.start().until_ready()
            seen.until(lambda: seen.value("penstock_restart_gap_seconds_count") == 1, "the gap")
            service.send(signal.SIGHUP)
            load.until_more(50)
            unplanned = MARKS[1]["expr"]
            limit = "penstock_memory_limit_bytes"  # not on every machine
            queries = [filled(q) for q in QUERIES if q != unplanned and limit not in q]
            with contextlib.suppress(AssertionError):
                seen.until(lambda: not _unanswered(seen, queries), "an answer to every query")
            assert _unanswered(seen, queries) == []
            assert seen.query(filled(unplanned)) == []
        finally:
            load.stream.close()


def _unanswered(seen: Prometheus, queries: list[str]) -> list[str]:
    """The queries that have no result, or only "not a number"."""
    return [
        query
        for query in queries
        if all(math.isnan(float(sample["value"][1])) for sample in seen.query(query))
    ]
