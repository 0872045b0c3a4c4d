"""k8s/ and everything the chart renders: valid on each Kubernetes, the same in both, and clean.

The schemas are those of the kubernetes-validate wheel, and crds/ for what operators add.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from devtools import manifests, tools
from devtools.chart import CHART
from tests.deploy.test_chart import VALUES, VERSIONS, helm, since, text_of

HERE = Path(__file__).parent
K8S = manifests.ROOT / "k8s"
COMPONENTS = sorted(path.name for path in (K8S / "components").iterdir())
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())

Tool = Callable[[str], Path]
Object = dict[str, Any]

#: Core kinds that chart and k8s/ may write; another one here is a decision.
KINDS = {
    "configmap-v1",
    "cronjob-batch-v1",
    "deployment-apps-v1",
    "job-batch-v1",
    "networkpolicy-networking-v1",
    "pod-v1",
    "poddisruptionbudget-policy-v1",
    "secret-v1",
    "service-v1",
    "serviceaccount-v1",
    "statefulset-apps-v1",
}


# -- building --------------------------------------------------------------------------


def run(binary: str, *arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    path = tools.find(binary)
    assert path is not None
    return subprocess.run(
        [path, *arguments], input=given, capture_output=True, text=True, check=False
    )


@cache
def built(directory: Path) -> str:
    result = run("kustomize", "build", directory)
    assert result.returncode == 0, result.stderr
    return result.stdout


def with_components(tmp_path: Path, *names: str) -> str:
    """The base with these components, as an overlay would have them."""

    def relative(path: Path) -> str:
        return os.path.relpath(path, tmp_path)

    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [relative(K8S / "base")],
        "components": [relative(K8S / "components" / name) for name in names],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return built(tmp_path)


def documents(text: str) -> list[Object]:
    return [document for document in yaml.safe_load_all(text) if document]


# -- chart and k8s/ say the same ---------------------------------------------------------


def settled(document: Object) -> Object:
    """A copy without what differs on purpose between the two."""
    it = copy.deepcopy(document)
    meta = it["metadata"]
    meta.pop("namespace", None)  # an overlay's business
    labels = meta.get("labels", {})
    for label in ("helm.sh/chart", "app.kubernetes.io/version", "app.kubernetes.io/managed-by"):
        labels.pop(label, None)  # Helm's own
    template = it.get("spec", {}).get("template", {})
    template.get("metadata", {}).pop("annotations", None)  # the chart's checksums
    for container in template.get("spec", {}).get("containers", []):
        container["env"] = sorted(container["env"], key=lambda entry: str(entry["name"]))
    return it


def inlined(text: str) -> dict[tuple[str, str], Object]:
    """What kustomize built, its settings put into the container as the chart has them."""
    found = documents(text)
    settings: Object = next(d for d in found if d["metadata"]["name"].startswith("penstock-sett"))
    found.remove(settings)
    for document in found:
        spec = document.get("spec", {}).get("template", {}).get("spec", {})
        for container in spec.get("containers", []):
            (source,) = container.pop("envFrom")
            assert source["configMapRef"]["name"] == settings["metadata"]["name"]
            container["env"] += [{"name": k, "value": v} for k, v in settings["data"].items()]
    return {(d["kind"], d["metadata"]["name"]): settled(d) for d in found}


def chart_says(tmp_path: Path, **values: Any) -> dict[tuple[str, str], Object]:
    """What the chart renders for the same wishes, without its `helm test`."""
    file = tmp_path / "values.yaml"
    wishes = {
        "kafka": {"bootstrapServers": "kafka:9092"},
        "topics": ["orders"],
        "control": {"createSecret": False},
    }
    file.write_text(yaml.safe_dump(wishes | values))
    result = helm("template", "penstock", CHART, "--kube-version", VERSIONS[-1], "-f", file)
    assert result.returncode == 0, result.stderr
    found = [d for d in documents(result.stdout) if not d["metadata"]["name"].endswith("-test")]
    return {(d["kind"], d["metadata"]["name"]): settled(d) for d in found}


def sidecar() -> Object:
    path = K8S / "components" / "native-sidecar" / "sidecar.yaml"
    (found,) = yaml.safe_load(path.read_text())["spec"]["template"]["spec"]["initContainers"]
    return dict(found)


#: The values of the chart that are a component of k8s/. Monitoring has a test of its own: its
#: alerts are for one release in the chart, and for all of them here.
SAME: dict[tuple[str, ...], Callable[[], Object]] = {
    (): dict,
    ("static-membership",): lambda: {
        "workload": {"kind": "StatefulSet"},
        "staticMembership": {"enabled": True},
    },
    ("restart-rules",): lambda: {"restartPolicy": "rules"},
    ("keda",): lambda: {"keda": {"enabled": True}},
    ("native-sidecar",): lambda: {"nativeSidecars": [sidecar()]},
    ("static-membership", "restart-rules", "native-sidecar"): lambda: {
        "workload": {"kind": "StatefulSet"},
        "staticMembership": {"enabled": True},
        "restartPolicy": "rules",
        "nativeSidecars": [sidecar()],
    },
}


@pytest.mark.parametrize("names", SAME, ids=lambda names: "+".join(names) or "base")
def test_chart_and_kustomize_say_the_same(
    tool: Tool, tmp_path: Path, names: tuple[str, ...]
) -> None:
    tool("kustomize")
    tool("helm")
    ours = inlined(with_components(tmp_path, *names))
    charts = chart_says(tmp_path, **SAME[names]())
    assert sorted(ours) == sorted(charts)
    for key, document in charts.items():
        assert ours[key] == document, key


def test_monitoring_says_the_same_but_for_the_scope(tool: Tool, tmp_path: Path) -> None:
    tool("kustomize")
    tool("helm")
    ours = inlined(with_components(tmp_path, "monitoring"))
    charts = chart_says(
        tmp_path,
        podMonitor={"enabled": True},
        prometheusRule={"enabled": True},
        dashboard={"enabled": True},
    )
    assert sorted(ours) == sorted(charts)
    assert ours["PodMonitor", "penstock"] == charts["PodMonitor", "penstock"]
    board = "ConfigMap", "penstock-dashboard"
    assert list(ours[board]["data"].values()) == list(charts[board]["data"].values())
    assert ours[board]["metadata"]["labels"].items() >= {("grafana_dashboard", "1")}
    rule = "PrometheusRule", "penstock"
    scope = ',namespace="default",pod=~"penstock-[a-z0-9]+-[a-z0-9]{5}"'
    assert scope in str(charts[rule])
    assert without(scope, charts[rule]["spec"]) == ours[rule]["spec"]


def without(text: str, value: Any) -> Any:
    """The same with the text taken out wherever it stands."""
    if isinstance(value, str):
        return value.replace(text, "")
    if isinstance(value, list):
        return [without(text, item) for item in value]
    if isinstance(value, dict):
        return {key: without(text, item) for key, item in value.items()}
    return value


def test_every_component_is_compared() -> None:
    compared = {name for names in SAME for name in names} | {"monitoring"}
    assert compared == set(COMPONENTS)


def test_copies_are_up_to_date(tool: Tool) -> None:
    tool("helm-docs")  # or the README of the chart would not be looked at
    assert manifests.main(["--check"]) == 0, "run `make manifests`"


# -- overlays --------------------------------------------------------------------------


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_holds_together(tool: Tool, name: str) -> None:
    tool("kustomize")
    found = documents(built(K8S / "overlays" / name))
    assert {d["metadata"]["namespace"] for d in found} == {f"penstock-{name}"}
    workload = next(d for d in found if d["kind"] in {"Deployment", "StatefulSet"})
    spec = workload["spec"]["template"]["spec"]
    settings = next(d for d in found if d["metadata"]["name"].startswith("penstock-settings-"))
    (container,) = spec["containers"]
    env = {e["name"]: e.get("value") for e in container["env"]} | settings["data"]
    assert spec["terminationGracePeriodSeconds"] == int(env["PENSTOCK_DRAIN_TIMEOUT"]) + 10
    selector = workload["spec"]["selector"]["matchLabels"]
    assert selector["app.kubernetes.io/instance"] != "penstock", "each service its own"
    assert selector.items() <= workload["spec"]["template"]["metadata"]["labels"].items()
    for document in found:
        if document["kind"] in {"PodMonitor", "PodDisruptionBudget"}:
            assert document["spec"]["selector"]["matchLabels"] == selector


# -- valid on every version --------------------------------------------------------------


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's strict schemas, their references made relative: that is how kubeconform looks.

    Their ids name a place that is nowhere, and would be looked at first.
    """
    source = files("kubernetes_validate") / "kubernetes-json-schema"
    target = tmp_path_factory.mktemp("schemas")
    for version in VERSIONS:
        (target / f"v{version}.0").mkdir()
        for name in (*KINDS, "_definitions"):
            text = (source / f"v{version}.0-local-strict" / f"{name}.json").read_text()
            schema = json.loads(text.replace("/api/_definitions.json#", "_definitions.json#"))
            schema.pop("$id", None)
            (target / f"v{version}.0" / f"{name}.json").write_text(json.dumps(schema))
    return target


def conforms(schemas: Path, version: str, text: str) -> str:
    """What kubeconform has against it; empty for nothing."""
    result = run(
        "kubeconform",
        "-strict",
        "-kubernetes-version",
        f"{version}.0",
        "-schema-location",
        f"{schemas}/{{{{.NormalizedKubernetesVersion}}}}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
        "-schema-location",
        f"{HERE}/crds/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
        given=text,
    )
    assert result.returncode in (0, 1), result.stderr
    return result.stdout + result.stderr


def everything(version: str, tmp_path: Path) -> str:
    """All value sets and all of k8s/, as far as they are for this version.

    What the chart renders does not depend on the version (test_chart sees to that).
    """
    texts = [text_of(values) for values in VALUES if _number(since(values)) <= _number(version)]
    names = [n for n in COMPONENTS if n != "restart-rules" or _number(version) >= 35]
    texts += [with_components(tmp_path, *names), built(K8S / "base")]
    texts += [built(K8S / "overlays" / name) for name in OVERLAYS]
    return "\n---\n".join(texts)


def _number(version: str) -> int:
    return int(version.split(".")[1])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid(tool: Tool, schemas: Path, tmp_path: Path, version: str) -> None:
    for name in ("kubeconform", "kustomize", "helm"):
        tool(name)
    assert conforms(schemas, version, everything(version, tmp_path)) == ""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("minReadySeconds: 10", "minReadySecond: 10", "'minReadySecond' not allowed"),
        ("minReadySeconds: 10", "minReadySeconds: soon", "/spec/minReadySeconds"),
        ("pollingInterval:", "polingInterval:", "'polingInterval' not allowed"),
        ("  podMetricsEndpoints:", "  podMetricEndpoints:", "not allowed"),
        ("kind: PrometheusRule", "kind: PrometheusRules", "could not find schema"),
    ],
)
def test_the_validation_sees_mistakes(
    tool: Tool, schemas: Path, tmp_path: Path, old: str, new: str, says: str
) -> None:
    tool("kubeconform")
    tool("kustomize")
    text = with_components(tmp_path, "keda", "monitoring")
    assert old in text
    assert says in conforms(schemas, VERSIONS[-1], text.replace(old, new, 1))


def test_restart_rules_are_not_for_old_versions(tool: Tool, schemas: Path, tmp_path: Path) -> None:
    tool("kubeconform")
    tool("kustomize")
    text = with_components(tmp_path, "restart-rules")
    assert "restartPolicyRules" in conforms(schemas, "1.33", text)


# -- clean -----------------------------------------------------------------------------

#: Containers in the value sets that stand for a user's own.
USERS = frozenset({"kafka-proxy", "log-shipper", "migrate", "report", "sql-proxy", "web"})

#: What kube-linter finds beside kube-linter.yaml: (check, in its words, why it stays).
EXPLAINED = [
    ("no-liveness-probe", '"ask-probes"', "the pod of `helm test` ends by itself"),
    ("no-readiness-probe", '"ask-probes"', "the pod of `helm test` ends by itself"),
    ("env-value-from", "unknown secret", "the value set names a Secret of the user's"),
    ("non-existent-service-account", '"shop"', "the value set names one of the user's"),
    ("dangling-networkpolicypeer-podselector", "=admin", "the user's peer"),
    ("read-secret-from-env-var", "DATABASE_URL", "the user's own variable"),
    ("read-secret-from-env-var", "PENSTOCK_SASL_USERNAME", "a user name; the password is a file"),
    ("read-secret-from-env-var", "PENSTOCK_SSL_PASSWORD", "a setting that has no file form"),
]

#: The same for kube-score.
ACCEPTED = {
    "CPU limit is not set": "it throttles heartbeats, and with them the seat in the group",
    "ImagePullPolicy is not set to Always": "tags of releases do not move",
    "The pod does not have a matching NetworkPolicy": "only the owner knows the peers: a value",
    "does not have a host podAntiAffinity set": "topologySpreadConstraints do it, softly",
    "Deployment few replicas": "one consumer is a legal number of consumers",
}


def by_name() -> dict[str, str]:
    """Each value set and each overlay, by itself: objects of two must not be mixed up."""
    found = {values.name: text_of(values) for values in VALUES}
    found |= {name: built(K8S / "overlays" / name) for name in OVERLAYS}
    return found | {"base": built(K8S / "base")}


def test_kube_linter_has_nothing_to_say(tool: Tool, tmp_path: Path) -> None:
    for name in ("kube-linter", "kustomize", "helm"):
        tool(name)
    left, used = [], set()
    for name, text in by_name().items():
        (tmp_path / "all.yaml").write_text(text)
        config = HERE / "kube-linter.yaml"
        result = run("kube-linter", "lint", "--config", config, "--format", "json", tmp_path)
        for report in json.loads(result.stdout)["Reports"] or []:
            check, says = report["Check"], report["Diagnostic"]["Message"]
            if any(f'"{container}"' in says for container in USERS):
                continue
            known = [row for row in EXPLAINED if row[0] == check and row[1] in says]
            used.update(known)
            if not known:
                left.append(f"{name}: {check}: {says}")
    assert left == []
    assert used == set(EXPLAINED), "an exception that nothing needs any more"


def test_kube_score_has_nothing_to_say(tool: Tool) -> None:
    for name in ("kube-score", "kustomize", "helm"):
        tool(name)
    left, used = [], set()
    for name, text in by_name().items():
        result = run("kube-score", "score", "--output-format", "ci", "-", given=text)
        assert "[OK]" in result.stdout, result.stderr
        for line in result.stdout.splitlines():
            if not line.startswith(("[CRITICAL]", "[WARNING]")):
                continue
            if any(f"({container})" in line for container in USERS):
                continue
            known = [words for words in ACCEPTED if words in line]
            used.update(known)
            if not known:
                left.append(f"{name}: {line}")
    assert left == []
    assert used == set(ACCEPTED), "an exception that nothing needs any more"


def test_the_linters_see_mistakes(tool: Tool, tmp_path: Path) -> None:
    """With these configurations, too."""
    for name in ("kube-linter", "kube-score", "kustomize"):
        tool(name)
    text = built(K8S / "base")
    broken = text.replace("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false")
    assert broken != text
    (tmp_path / "all.yaml").write_text(broken)
    config = HERE / "kube-linter.yaml"
    result = run("kube-linter", "lint", "--config", config, tmp_path)
    assert "no-read-only-root-fs" in result.stdout
    result = run("kube-score", "score", "--output-format", "ci", "-", given=broken)
    assert "writable root filesystem" in result.stdout
