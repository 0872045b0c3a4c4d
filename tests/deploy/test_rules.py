"""The alerts: what they look at, when they fire, when they are silent, and what they say."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from devtools.prometheus import Prometheus
from devtools.service import Service
from penstock import exits
from penstock.exits import Exit
from penstock.supervisor.exit_history import LOST_REASON
from tests.deploy.rules import cases, reading
from tests.deploy.rules.cases import CASES
from tests.deploy.rules.mutants import MUTANTS
from tests.deploy.rules.reading import ANCHOR
from tests.deploy.rules.world import ROOT, RULES, STEP, World, at, firing, names_in, promtool

DOCS = ROOT / "docs"
TEXT = RULES.read_text()
ALERTS = {alert.name: alert for alert in reading.alerts(TEXT)}
SELECTORS = [selector for alert in ALERTS.values() for selector in alert.selectors]

Tool = Callable[[str], Path]


# -- what they look at -----------------------------------------------------------------------


def test_promtool_takes_the_file(tool: Tool) -> None:
    done = subprocess.run(
        [tool("promtool"), "check", "rules", "--lint-fatal", RULES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_every_selector_can_be_scoped_to_a_release() -> None:
    assert len(SELECTORS) > 30
    of_a_container = {n for n, labels in reading.ksm_labels().items() if "container" in labels}
    for selector in SELECTORS:
        if not selector.anchored:
            assert not of_a_container & set(selector.names), selector.text
            assert selector.names[0].startswith("kube_"), selector.text


@pytest.mark.parametrize("alert", ALERTS.values(), ids=ALERTS)
def test_whole_pods_are_only_joined_to_what_is_scoped(alert: reading.Alert) -> None:
    found = reading.selectors(alert.expr)
    assert found[0].anchored
    for selector in found:
        if not selector.anchored:
            before = alert.expr[: alert.expr.index(selector.text)]
            assert re.search(r"(and|unless|\*) on \([^)]*\)[^{}]*$", before), selector.text


def test_every_metric_and_label_is_exported() -> None:
    own, ksm = reading.own_labels(), reading.ksm_labels()
    for selector in SELECTORS:
        for name in selector.names:
            assert name == "up" or name in own or name in ksm, selector.text
            labels = own.get(name) or ksm.get(name) or set()
            # A label of kube-state-metrics' own target says nothing about the pod.
            target = set() if name in ksm else reading.TARGET
            for label, operator, value in selector.matchers:
                assert label in labels | target, selector.text
                known = reading.known_values(name, label)
                if known is not None and operator == "=" and value:
                    assert value in known, selector.text


def test_grouping_is_by_labels_that_exist() -> None:
    exported = {
        label
        for labels in (*reading.own_labels().values(), *reading.ksm_labels().values())
        for label in labels
    }
    clauses = re.findall(r"\b(?:by|on|ignoring|without|group_left) \(([\w, ]*)\)", TEXT)
    assert len(clauses) > 20
    for clause in clauses:
        assert set(filter(None, clause.split(", "))) <= exported | reading.TARGET, clause


def test_codes_are_those_of_the_contract() -> None:
    outside = ALERTS["PenstockContainerUnplannedExit"].expr
    assert {int(code) for code in re.findall(r"!= (\d+)", outside)} == exits.PLANNED
    drain = "".join(ALERTS["PenstockDrainDeadlineMissed"].queries)
    assert set(re.findall(r'code="(\d+)"', drain)) == {str(int(Exit.FORCED))}
    named = set(re.findall(r'eq \.Labels\.name "(\w+)"', TEXT))
    assert named == {kind.name for kind in exits.TABLE if not kind.planned} | {exits.LOST}


def test_modelled_pods_look_like_real_ones() -> None:
    world = World(failed_jobs=[(0, "orders-batch")])
    world.pod("a").exit(at(1), 1)
    world.pod("b", sidecar=True).exit(at(1), 1)
    world.pod("c", owner=cases.JOB).finish(at(1), 1)
    world.pod("d").delete(at(1), 4, lingers=at(9))
    world.pod("e", starts=False, waits="ImagePullBackOff")
    world.pod("f", starts=False, waits="ImagePullBackOff", sidecar=True)
    names = names_in(RULES)
    real = reading.ksm_labels()
    modelled: dict[str, set[str]] = {}
    for line in world.lines(at(5), names):
        name, _, rest = line["series"].partition("{")
        modelled.setdefault(name, set()).update(re.findall(r'(\w+)="', rest))
    for name in sorted(name for name in modelled if name.startswith("kube_")):
        if name != "kube_node_info":
            assert modelled[name] - {"job", "instance"} == real[name], name
    assert {name for name in names if name.startswith("kube_")} <= modelled.keys()


# -- what they come with ---------------------------------------------------------------------


@pytest.mark.parametrize("alert", ALERTS.values(), ids=ALERTS)
def test_an_alert_says_how_bad_what_and_what_to_do(alert: reading.Alert) -> None:
    assert alert.severity in ("critical", "warning")
    assert alert.annotations.keys() == {"summary", "description", "runbook"}
    assert all(alert.annotations.values())
    assert alert.annotations["runbook"] == f"docs/runbooks/{alert.name}.md"
    page = (DOCS / "runbooks" / f"{alert.name}.md").read_text()
    assert page.startswith(f"# {alert.name}\n")
    for heading in (
        "What it means",
        "What users notice",
        "How to look",
        "What to do",
        "What it does not mean",
    ):
        assert f"\n## {heading}\n" in page, heading


def test_no_runbook_is_left_over() -> None:
    assert {page.stem for page in (DOCS / "runbooks").iterdir()} == set(ALERTS)


def test_the_overview_is_complete() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\(runbooks/(\w+)\.md\) \| (\w+) \|", _page(), re.MULTILINE)
    assert rows == [(name, name, alert.severity) for name, alert in ALERTS.items()]


def _page() -> str:
    return (DOCS / "alerts.md").read_text()


def test_queries_in_the_documentation_are_good_ones(tool: Tool, tmp_path: Path) -> None:
    text = "\n".join([_page(), *(p.read_text() for p in (DOCS / "runbooks").iterdir())])
    blocks = re.findall(r"^```promql\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    queries = [line for block in blocks for line in block.splitlines()]
    assert len(queries) > len(ALERTS)
    own, ksm = reading.own_labels(), reading.ksm_labels()
    for query in queries:
        found = reading.selectors(query)
        assert found, query
        for selector in found:
            assert selector.names[0] in (*own, *ksm, "up"), query
            assert selector.anchored or "container" not in ksm[selector.names[0]], query
    rules = tmp_path / "queries.yaml"
    recorded = [{"record": f"query:{n}", "expr": query} for n, query in enumerate(queries)]
    rules.write_text(json.dumps({"groups": [{"name": "runbooks", "rules": recorded}]}))
    done = subprocess.run(
        [tool("promtool"), "check", "rules", rules], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_of_compose_takes_its_configuration(tool: Tool, tmp_path: Path) -> None:
    shutil.copy(ROOT / "monitoring" / "prometheus.yaml", tmp_path)
    shutil.copy(RULES, tmp_path)
    done = subprocess.run(
        [tool("promtool"), "check", "config", tmp_path / "prometheus.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout
    configuration = yaml.safe_load((tmp_path / "prometheus.yaml").read_text())
    for target in configuration["scrape_configs"][0]["static_configs"]:
        assert target["labels"].keys() == {"namespace", "pod", "container"}
        assert target["labels"]["container"] == "penstock"


# -- when they fire --------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_only_these_alerts_fire(name: str, tool: Tool, tmp_path: Path) -> None:
    world, expected = CASES[name]()
    test = firing(world, RULES, expected)
    assert promtool(tool("promtool"), RULES, test, tmp_path) == ""


def test_every_alert_fires_somewhere() -> None:
    fired = {
        alert.split()[0]
        for build in CASES.values()
        for alerts in build()[1].values()
        for alert in alerts
    }
    assert fired == set(ALERTS)


SCOPE = ANCHOR + ',namespace="shop",pod=~"{}-.*"'


@pytest.mark.parametrize(
    "name",
    [
        "crash",
        "crash_of_a_native_sidecar",
        "rollout_right_after_a_crash",
        "pod_failed_under_restart_rules",
        "batch_run_that_failed",
        "crash_loop_before_the_journal",
        "nothing_at_all",
    ],
)
def test_rules_hold_when_scoped_to_a_release(name: str, tool: Tool, tmp_path: Path) -> None:
    scoped = tmp_path / "rules.yaml"
    scoped.write_text(TEXT.replace(ANCHOR, SCOPE.format("orders")))
    world, expected = CASES[name]()
    assert promtool(tool("promtool"), scoped, firing(world, RULES, expected), tmp_path) == ""


def test_rules_of_another_release_are_silent(tool: Tool, tmp_path: Path) -> None:
    scoped = tmp_path / "rules.yaml"
    scoped.write_text(TEXT.replace(ANCHOR, SCOPE.format("payments")))
    world, expected = CASES["crash"]()
    world.pod("orders-1", joins_after=at(1000)).exit(at(10), 2)
    world.pod("orders-2").finish(at(10), 1)
    test = firing(world, RULES, dict.fromkeys(expected, cases.SILENT))
    assert promtool(tool("promtool"), scoped, test, tmp_path) == ""


@pytest.mark.parametrize(
    ("name", "there", "instead"),
    MUTANTS,
    ids=[f"{n}-{name}" for n, (name, *_) in enumerate(MUTANTS)],
)
def test_a_broken_rule_is_noticed(
    name: str, there: str, instead: str, tool: Tool, tmp_path: Path
) -> None:
    broken = tmp_path / "rules.yaml"
    broken.write_text(TEXT.replace(there, instead))
    assert broken.read_text() != TEXT
    world, expected = CASES[name]()
    test = firing(world, broken, expected)
    assert "FAILED" in promtool(tool("promtool"), broken, test, tmp_path)


# -- what they say ---------------------------------------------------------------------------


def said(world: World, alert: str, minute: float, labels: dict[str, str], **texts: str) -> Any:
    return {
        "interval": f"{STEP}s",
        "input_series": world.lines(at(minute), names_in(RULES)),
        "alert_rule_test": [
            {
                "alertname": alert,
                "eval_time": f"{at(minute):g}s",
                "exp_alerts": [
                    {
                        "exp_labels": {**labels, "severity": ALERTS[alert].severity},
                        "exp_annotations": {**texts, "runbook": f"docs/runbooks/{alert}.md"},
                    }
                ],
            }
        ],
    }


HERE = {"namespace": "shop", "pod": "orders-0", "container": "penstock"}
UNPLANNED_CODES = [Exit.CRASHED, Exit.FORCED, Exit.UNHEALTHY, Exit.USAGE, Exit.CONFIG, 137, 139, 17]


def meaning(code: int) -> str:
    name = exits.name_of(code)
    return next(kind.when for kind in exits.TABLE if kind.name == name)


@pytest.mark.parametrize("code", UNPLANNED_CODES, ids=int)
def test_our_own_alert_names_the_code_and_its_meaning(
    code: int, tool: Tool, tmp_path: Path
) -> None:
    world = World()
    world.pod().exit(at(10), int(code))
    test = said(
        world,
        "PenstockUnplannedExit",
        12,
        HERE,
        summary="Penstock in shop/orders-0 ended, and nobody had planned it.",
        description="Pod shop/orders-0 counted an unplanned exit within the last 15 minutes: "
        f"code {int(code)} ({exits.name_of(code)}: {meaning(code)}).",
    )
    assert promtool(tool("promtool"), RULES, test, tmp_path) == ""


@pytest.mark.parametrize("code", UNPLANNED_CODES, ids=int)
def test_the_alert_from_outside_names_the_code_and_its_meaning(
    code: int, tool: Tool, tmp_path: Path
) -> None:
    world = World()
    world.pod().exit(at(10), int(code))
    what = "not a code of the contract" if code == 17 else meaning(code)
    test = said(
        world,
        "PenstockContainerUnplannedExit",
        12,
        HERE,
        summary=f"The container penstock of shop/orders-0 exited with {int(code)}.",
        description="kube-state-metrics: the container of pod shop/orders-0 ended with code "
        f"{int(code)} ({exits.name_of(code)}: {what}).",
    )
    assert promtool(tool("promtool"), RULES, test, tmp_path) == ""


def test_a_lost_run_and_one_that_a_plan_covered_are_named(tool: Tool, tmp_path: Path) -> None:
    world = World()
    pod = world.pod()
    pod.exit(at(10), 137, lost=True)
    pod.exit(at(12), 4)
    test = said(
        world,
        "PenstockUnplannedExit",
        15,
        HERE,
        summary="Penstock in shop/orders-0 ended, and nobody had planned it.",
        description="Pod shop/orders-0 counted an unplanned exit within the last 15 minutes: "
        f"code unknown (LOST: {LOST_REASON}).",
    )
    assert promtool(tool("promtool"), RULES, test, tmp_path) == ""


def test_an_exit_that_no_series_names_points_to_the_journal(tool: Tool, tmp_path: Path) -> None:
    world = World()
    pod = world.pod()
    pod.exit(at(10), 17)
    pod.exit(at(12), 4)
    test = said(
        world,
        "PenstockUnplannedExit",
        15,
        HERE,
        summary="Penstock in shop/orders-0 ended, and nobody had planned it.",
        description="Pod shop/orders-0 counted an unplanned exit within the last 15 minutes: "
        "its code is in the journal and in `penstock status`.",
    )
    assert promtool(tool("promtool"), RULES, test, tmp_path) == ""


def test_the_others_say_what_and_where(tool: Tool, tmp_path: Path) -> None:
    failed, drain, storm, waiting, none = (World() for _ in range(5))
    failed.pod().finish(at(10), 1)
    drain.pod().exit(at(10), 2)
    pod = storm.pod()
    for number in range(6):
        pod.exit(at(2 + 4 * number), 4)
    pod = waiting.pod(starts=False)
    pod.start(0, boots=False)
    for _ in range(8):
        pod.exit(pod.runs[-1].start + 1, 78, boots=False)
    none.pod(unscraped=(0, at(60)))
    lag = cases.CASES["lag_growing"]()[0]
    batch = cases.CASES["batch_run_that_failed"]()[0]
    letters = cases.CASES["dead_letters_refused"]()[0]
    breaker = cases.CASES["breaker_open"]()[0]
    tests = [
        said(
            failed,
            "PenstockPodFailed",
            11,
            HERE,
            summary="The pod shop/orders-0 has failed.",
            description="Pod shop/orders-0 is Failed and will not come back under this name "
            "(reason: Error). No metric has its exit code: `kubectl -n shop describe pod orders-0` "
            "shows it with the termination message; 0 and 4 are the only planned ones.",
        ),
        said(
            batch,
            "PenstockJobFailed",
            17,
            {"namespace": "shop", "job_name": "orders-batch", "container": "penstock"},
            summary="The Job shop/orders-batch has failed.",
            description="Job shop/orders-batch has given up. Its pods exited with codes other than "
            "0 and 4 too often (or ran for too long): `kubectl -n shop describe pods -l "
            "batch.kubernetes.io/job-name=orders-batch` shows each code with the termination "
            "message.",
        ),
        said(
            drain,
            "PenstockDrainDeadlineMissed",
            11,
            HERE,
            summary="Penstock in shop/orders-0 could not drain in time.",
            description=f"Pod shop/orders-0 exited with code 2 (FORCED: {meaning(2)}) within the "
            "last 15 minutes. Reason: as the test said.",
        ),
        said(
            storm,
            "PenstockRestartStorm",
            25,
            HERE,
            summary="Penstock in shop/orders-0 is restarted again and again.",
            description="Pod shop/orders-0 ended on request (codes 0 and 4) about 6 times "
            "within 30 minutes. Each of them was planned; somebody, or something, plans too often.",
        ),
        said(
            waiting,
            "PenstockNotReady",
            15,
            HERE,
            summary="Penstock in shop/orders-0 has not been ready for 10 minutes.",
            description="Pod shop/orders-0 takes no records. The container is waiting: "
            "CrashLoopBackOff. Its last exit code was 78.",
        ),
        said(
            lag,
            "PenstockLagGrowing",
            40,
            {
                "namespace": "shop",
                "container": "penstock",
                "job": "shop/orders",
                "topic": "orders",
            },
            summary="Penstock in shop does not keep up with orders.",
            description="The lag of 1 partitions of orders grows although their consumers are "
            "alive; together they are 15003 records behind.",
        ),
        said(
            letters,
            "PenstockDeadLettersRefused",
            30,
            {**HERE, "topic": "orders"},
            summary="Dead letters of orders are not taken from shop/orders-0.",
            description="For 10 minutes pod shop/orders-0 has sent dead letters of orders, and no "
            "broker confirmed any. Their records wait, with what must come after them (1 records "
            "of the pod wait for a next try or their dead letter); a restart or stop meanwhile "
            "exits 2.",
        ),
        said(
            breaker,
            "PenstockBreakerOpen",
            30,
            {**HERE, "group": "billing"},
            summary="The circuit breaker of billing in shop/orders-0 has been open for 10 minutes.",
            description="Most records that pod shop/orders-0 tries for the group billing fail: it "
            "pauses, and tries one at a time (20 records of the pod wait for a next try or their "
            "dead letter). It goes on by itself when they succeed.",
        ),
        said(
            none,
            "PenstockMetricsAbsent",
            15,
            HERE,
            summary="No metrics from Penstock in shop/orders-0 for 10 minutes.",
            description="Pod shop/orders-0 is there but cannot be scraped. Whether it consumes, "
            "and with which code it ended, is unknown.",
        ),
        said(
            World(kubernetes=False),
            "PenstockMetricsAbsent",
            15,
            {"container": "penstock"},
            summary="No metrics from Penstock for 10 minutes.",
            description="Prometheus has no target and no series of Penstock. Whether it consumes, "
            "and with which code it ended, is unknown.",
        ),
    ]
    complaints = [promtool(tool("promtool"), RULES, test, tmp_path) for test in tests]
    assert "".join(complaints) == ""


# -- in earnest ------------------------------------------------------------------------------


def test_a_real_prometheus_tells_a_kill_from_a_planned_restart(
    tool: Tool,
    make_service: Callable[..., Service],
    broker: Any,
    topic: str,
    group: str,
    tmp_path: Path,
) -> None:
    service = make_service(bootstrap_servers=broker.bootstrap, topics=topic, group_id=group)
    service.start().until_ready()
    quick = TEXT.replace("for: 10m", "for: 1m").replace(
        "  - name: penstock\n", "  - name: penstock\n    interval: 1s\n"
    )
    labels = {"namespace": "shop", "pod": "orders-0", "container": "penstock"}
    with Prometheus(tool("prometheus"), tmp_path / "p", {service.port: labels}, quick) as seen:
        seen.until(lambda: seen.value("penstock_unplanned_exits_total") == 0, "a first scrape")

        assert service.stop(signal.SIGUSR2) == Exit.RESTART
        service.start().until_ready()
        restarts = 'penstock_exits_total{code="4"}'
        seen.until(lambda: seen.value(restarts) == 1, "the restart")
        seen.until_evaluated()
        assert seen.firing() == []

        assert service.stop(signal.SIGKILL) == 128 + signal.SIGKILL
        service.start()
        seen.until(seen.firing, "an alert")
        (alert,) = seen.firing()
        assert alert["labels"] == {
            "alertname": "PenstockUnplannedExit",
            "severity": "critical",
            **labels,
        }
        assert f"code unknown (LOST: {LOST_REASON})" in alert["annotations"]["description"]
