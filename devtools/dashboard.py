"""The Grafana dashboard, from a short description: ``helm/penstock/files/dashboard.json``.

``python -m devtools.dashboard`` writes it; ``--check`` only tells (exit 1) that it has drifted.
Queries are written without their scope; every selector gets it here. What Grafana fills in by
itself when it loads a dashboard is left out.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from penstock.lifecycle import ORDER, State

PATH: Final = Path(__file__).resolve().parent.parent / "helm/penstock/files/dashboard.json"

#: The last version of the classic model.
SCHEMA_VERSION: Final = 42
#: What chart, rules and dashboard know a Penstock container by.
SCOPE: Final = 'container="penstock",namespace=~"$namespace",pod=~"$pod"'
_DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH: Final = 24

_SELECTOR: Final = re.compile(r"\b(penstock_\w+)(?:\{([^}]*)\})?")
_COLOURS: Final = {
    State.STARTING: "blue",
    State.RUNNING: "green",
    State.QUIET: "yellow",
    State.DRAINING: "orange",
    State.STOPPED: "dark-red",
}
_GREEN_RED: Final = [{"color": "green", "value": None}, {"color": "red", "value": 1}]


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: ``queries`` are (PromQL, legend); ``more`` goes into its field defaults."""

    title: str
    description: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    more: dict[str, Any] = field(default_factory=dict)


def scoped(query: str) -> str:
    """The query, every selector of it scoped to what the variables say."""
    return _SELECTOR.sub(
        lambda m: f"{m[1]}{{{SCOPE}{',' + m[2] if m[2] else ''}}}", " ".join(query.split())
    )


def _state_number() -> str:
    """A number for each pod, which the panel shows as a word."""
    return " or ".join(
        f'max by (pod) (penstock_state{{state="{state}"}} == 1) * {number}'
        for number, state in enumerate(ORDER)
    )


def _mean(metric: str) -> str:
    """The mean of what a histogram took in; a gap where that was nothing."""
    window = "[$__rate_interval]"
    return f"sum (increase({metric}_sum{window})) / (sum (increase({metric}_count{window})) > 0)"


def _most(quantile: float, metric: str) -> str:
    """A quantile over the whole range shown: restarts are too rare for less."""
    return f"histogram_quantile({quantile}, sum by (le) (increase({metric}_bucket[$__range])))"


def _spread(metric: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (
            (
                f"histogram_quantile({quantile}, "
                f"sum by (topic, le) (rate({metric}_bucket[$__rate_interval])))"
            ),
            f"{{{{topic}}}} {quantile * 100:g} %",
        )
        for quantile in (0.5, 0.99)
    )


_STAT: Final[dict[str, Any]] = {"kind": "stat", "width": 4, "height": 4}
_BARS: Final[dict[str, Any]] = {
    "custom": {"drawStyle": "bars", "fillOpacity": 80, "stacking": {"mode": "normal"}},
    "decimals": 0,
}
_POINTS: Final[dict[str, Any]] = {
    "custom": {"showPoints": "always", "spanNulls": True},
    "min": 0,
}
_LAST_EXIT: Final = (
    "penstock_last_exit_info{%s} * ignoring (code, name, planned, reason) group_left () "
    "penstock_last_exit_timestamp_seconds * 1000"
)

#: Rows of panels, from the top.
ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "State": (
        Panel(
            "Unplanned exits",
            "Ends that nobody planned, in the range shown. From the journal: a run that was "
            "killed is counted when the next one starts.",
            (("sum (round(increase(penstock_unplanned_exits_total[$__range])))", ""),),
            more={"thresholds": {"mode": "absolute", "steps": _GREEN_RED}, "decimals": 0},
            **_STAT,
        ),
        Panel(
            "Planned exits",
            "Exits 0 and 4 in the range shown: asked for, and earned by a clean drain. Those of "
            "pods that were deleted are not in it: nobody comes back to count them.",
            (('sum (round(increase(penstock_exits_total{planned="true"}[$__range])))', ""),),
            more={"decimals": 0},
            **_STAT,
        ),
        Panel(
            "Services running",
            "Services in the state running, of those that answer.",
            (
                ('sum (penstock_state{state="running"})', "running"),
                ("count (penstock_build_info)", "of"),
            ),
            **_STAT,
        ),
        Panel(
            "Lag",
            "Records that are not finished yet, over all partitions whose lag is known.",
            (("sum (penstock_consumer_lag)", ""),),
            **_STAT,
        ),
        Panel(
            "Assigned partitions",
            "Partitions that the services have now.",
            (("sum (penstock_assigned_partitions)", ""),),
            **_STAT,
        ),
        Panel(
            "Alerts firing",
            "Alerts of docs/alerts.md, as Prometheus evaluates them.",
            (
                (
                    (
                        'count (ALERTS{alertname=~"Penstock.*",alertstate="firing",'
                        'namespace=~"$namespace|"}) or vector(0)'
                    ),
                    "",
                ),
            ),
            more={"thresholds": {"mode": "absolute", "steps": _GREEN_RED}},
            **_STAT,
        ),
        Panel(
            "State by pod",
            "A gap is a service that does not answer: it is down, or nobody scrapes it.",
            ((_state_number(), "{{pod}}"),),
            kind="state-timeline",
            unit="none",
            width=24,
            more={
                "mappings": [
                    {
                        "type": "value",
                        "options": {
                            str(number): {
                                "text": str(state),
                                "color": _COLOURS[state],
                                "index": number,
                            }
                            for number, state in enumerate(ORDER)
                        },
                    }
                ],
                "custom": {"fillOpacity": 80, "lineWidth": 0},
            },
        ),
    ),
    "Exits and restarts": (
        Panel(
            "Exits by code",
            "0 and 4 are planned; every other code is not. Counted when the next run starts.",
            (
                (
                    "sum by (code, name) (increase(penstock_exits_total[$__rate_interval])) > 0",
                    "{{code}} {{name}}",
                ),
            ),
            width=12,
            more=_BARS,
        ),
        Panel(
            "Last exit of each pod",
            "When, with which code and why the previous run ended; pods in their first run are "
            "absent.",
            ((_LAST_EXIT % "", ""),),
            kind="table",
            unit="dateTimeAsIso",
            width=12,
        ),
        Panel(
            "Restart gap",
            "From the last record done before a planned restart to the first one taken after it.",
            (
                (_mean("penstock_restart_gap_seconds"), "mean"),
                (_most(0.95, "penstock_restart_gap_seconds"), "95 % in the range shown"),
            ),
            unit="s",
            more=_POINTS,
        ),
        Panel(
            "Drain time",
            "From the request to the end of the drain. Near PENSTOCK_DRAIN_TIMEOUT, exits 2 are "
            "near, too.",
            (
                (_mean("penstock_drain_duration_seconds"), "mean"),
                (_most(0.95, "penstock_drain_duration_seconds"), "95 % in the range shown"),
            ),
            unit="s",
            more=_POINTS,
        ),
        Panel(
            "Memory",
            "Working set of each pod, its workers, and the lowest limit. At PENSTOCK_MEMORY_HIGH "
            "of it the largest worker is replaced.",
            (
                ("max by (pod) (penstock_memory_working_set_bytes)", "{{pod}}"),
                (
                    "max by (pod, worker) (penstock_worker_memory_bytes)",
                    "{{pod}} worker {{worker}}",
                ),
                ("min(penstock_memory_limit_bytes)", "limit"),
            ),
            unit="bytes",
        ),
        Panel(
            "Reloads",
            "By outcome: given_up leaves the old workers at work; /status and the log say why.",
            (
                (
                    "sum by (outcome) (increase(penstock_reloads_total[$__rate_interval])) > 0",
                    "{{outcome}}",
                ),
            ),
            more=_BARS,
        ),
        Panel(
            "Workers replaced for memory",
            "Planned, in place: a handler that leaks, or a limit that is too low.",
            (
                (
                    (
                        "sum by (pod, reason) "
                        "(increase(penstock_worker_recycles_total[$__rate_interval]))"
                    ),
                    "{{pod}} {{reason}}",
                ),
            ),
            more=_BARS,
        ),
        Panel(
            "Worker exits",
            "Ends of worker processes while their service stayed up: reloads (planned), or a "
            "death that ends the service, too.",
            (
                (
                    (
                        "sum by (code, name) "
                        "(increase(penstock_worker_exits_total[$__rate_interval])) > 0"
                    ),
                    "{{code}} {{name}}",
                ),
            ),
            more=_BARS,
        ),
    ),
    "Work": (
        Panel(
            "Throughput",
            "Records by outcome: done, retried (the handler raised), dead_lettered, skipped, "
            "dropped (buffered, never started) and lost (finished too late to commit); the last "
            "two come again.",
            (
                (
                    "sum by (topic, outcome) (rate(penstock_records_total[$__rate_interval]))",
                    "{{topic}} {{outcome}}",
                ),
            ),
            unit="recps",
        ),
        Panel(
            "Lag by topic",
            "End of the log minus what is finished. Partitions whose lag is unknown are left out, "
            "so the sum falls while partitions move.",
            (("sum by (topic) (penstock_consumer_lag)", "{{topic}}"),),
        ),
        Panel(
            "Lag of the ten worst partitions",
            "One partition far above the others: a hot key, or a record that keeps failing.",
            (
                (
                    "topk(10, max by (topic, partition) (penstock_consumer_lag))",
                    "{{topic}} {{partition}}",
                ),
            ),
        ),
        Panel(
            "Record age",
            "Age of the oldest record of each batch when it is handed to a handler.",
            _spread("penstock_record_age_seconds"),
            unit="s",
        ),
        Panel(
            "Time in the handler",
            "For each record.",
            _spread("penstock_record_processing_seconds"),
            unit="s",
        ),
        Panel(
            "In flight",
            "Records that handlers hold now: what a drain would wait for.",
            (("sum by (pod) (penstock_in_flight_records)", "{{pod}}"),),
        ),
        Panel(
            "Longest in flight",
            "How long the record longest in a handler has been there. Beyond "
            "PENSTOCK_HANDLER_TIMEOUT liveness fails.",
            (("max by (pod) (penstock_oldest_in_flight_seconds)", "{{pod}}"),),
            unit="s",
        ),
    ),
    "Failures": (
        Panel(
            "Failed tries",
            "By reason: error (the handler raised), timeout (it took too long), poison (no "
            "further try can help: it goes to the dead letters, or is skipped, or stops).",
            (
                (
                    (
                        "sum by (topic, reason) "
                        "(rate(penstock_record_failures_total[$__rate_interval]))"
                    ),
                    "{{topic}} {{reason}}",
                ),
            ),
            unit="cps",
        ),
        Panel(
            "Dead letters",
            "Sent, by the topic of the record. One that failed holds its record, and is sent "
            "again: look for a missing topic or permission.",
            (
                (
                    (
                        "sum by (topic, outcome) "
                        "(increase(penstock_dead_letter_sends_total[$__rate_interval]))"
                    ),
                    "{{topic}} {{outcome}}",
                ),
            ),
            more=_BARS,
        ),
        Panel(
            "Waiting for another try",
            "Records whose handler raised, until their back-off is over; the rest of their "
            "partition, or key, waits behind them.",
            (("sum by (pod) (penstock_retrying_records)", "{{pod}}"),),
        ),
        Panel(
            "Circuit breakers",
            "Workers whose breaker is open or probing, and how often it opened: what the handler "
            "needs is broken, rather than the records.",
            (
                ("sum by (group) (penstock_breaker_open)", "{{group}} open"),
                (
                    "sum by (group) (increase(penstock_breaker_opened_total[$__rate_interval]))",
                    "{{group}} opened",
                ),
            ),
        ),
    ),
    "Group and broker": (
        Panel(
            "Assigned partitions by pod",
            "A pod without any is a spare, or cannot join.",
            (("sum by (pod) (penstock_assigned_partitions)", "{{pod}}"),),
        ),
        Panel(
            "Rebalances",
            "Changes of the assignment: assigned, revoked (given up in order), lost (taken away: "
            "records come again).",
            (
                (
                    "sum by (event) (increase(penstock_rebalances_total[$__rate_interval]))",
                    "{{event}}",
                ),
            ),
            more=_BARS,
        ),
        Panel(
            "Commits",
            "Offset commits by outcome. Failed ones are tried again; while they fail, a crash "
            "repeats more.",
            (
                (
                    "sum by (outcome) (rate(penstock_commits_total[$__rate_interval]))",
                    "{{outcome}}",
                ),
            ),
            unit="cps",
        ),
        Panel(
            "Poll age",
            "Since each worker's last poll. Beyond PENSTOCK_POLL_STALL_TIMEOUT liveness fails.",
            (("max by (pod, worker) (penstock_poll_age_seconds)", "{{pod}} {{worker}}"),),
            unit="s",
        ),
        Panel(
            "Versions",
            "What runs, and how many of it: two rows are a rollout under way.",
            (("count by (version, python, kafka_python) (penstock_build_info)", ""),),
            kind="table",
        ),
    ),
}

_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "colorMode": "value",
        "graphMode": "none",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    },
    "state-timeline": {
        "mergeValues": True,
        "showValue": "auto",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "single", "sort": "none"},
    },
    "table": {"showHeader": True, "cellHeight": "sm"},
}

#: Labels of the target, which a table need not repeat in each row.
_HIDDEN: Final = ("Time", "__name__", "container", "endpoint", "instance", "job")


def panels() -> Iterator[dict[str, Any]]:
    """Rows and panels, each in its place."""
    number, top = 0, 0
    for row, members in ROWS.items():
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row,
            "collapsed": False,
            "panels": [],
            "gridPos": {"h": 1, "w": _WIDTH, "x": 0, "y": top},
        }
        left, top, height = 0, top + 1, 0
        for panel in members:
            if left + panel.width > _WIDTH:
                left, top = 0, top + height
            number, height = number + 1, panel.height
            place = {"h": panel.height, "w": panel.width, "x": left, "y": top}
            yield _panel(panel, number, place)
            left += panel.width
        top += height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    now = panel.kind in ("stat", "table")
    found: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, **panel.more}, "overrides": []},
        "options": _OPTIONS[panel.kind],
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _DATASOURCE,
                "expr": scoped(query),
                "legendFormat": legend,
                "instant": now,
                "range": not now,
                "format": "table" if panel.kind == "table" else "time_series",
            }
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }
    if panel.kind == "table":
        hidden = {"excludeByName": dict.fromkeys(_HIDDEN, True)}
        found["transformations"] = [{"id": "organize", "options": hidden}]
    return found


def _annotation(name: str, colour: str, planned: str) -> dict[str, Any]:
    """A mark at the very time of each exit, which is the series' value."""
    return {
        "name": name,
        "datasource": _DATASOURCE,
        "enable": True,
        "iconColor": colour,
        "expr": scoped(_LAST_EXIT % f'planned="{planned}"'),
        "useValueForTime": True,
        "titleFormat": "{{pod}}: {{code}} {{name}}",
        "textFormat": "{{reason}}",
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,  # with the time range: pods come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",  # a target without the label, too
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def dashboard() -> dict[str, Any]:
    """The whole of it."""
    known = 'penstock_build_info{container="penstock"'
    return {
        "uid": "penstock",
        "title": "Penstock",
        "description": "Kafka consumers that can be restarted on purpose.",
        "tags": ["kafka", "penstock"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "annotations": {
            "list": [
                _annotation("Planned exits", "blue", "true"),
                _annotation("Unplanned exits", "red", "false"),
            ]
        },
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                _variable("namespace", f"label_values({known}}}, namespace)"),
                _variable("pod", f'label_values({known},namespace=~"$namespace"}}, pod)'),
            ]
        },
        "panels": list(panels()),
    }


def rendered() -> str:
    """The file's text."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


def main(argv: list[str]) -> int:
    """Write, or with ``--check`` tell."""
    drifted = not PATH.exists() or PATH.read_text() != rendered()
    if drifted and "--check" not in argv:
        PATH.write_text(rendered())
    if drifted:
        print(f"{'drifted' if '--check' in argv else 'rewritten'}: {PATH.name}")
    return 1 if drifted and "--check" in argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
