"""The Helm chart: renders everywhere, says what the code says, and refuses what cannot work."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import penstock
from devtools import chart, tools
from devtools.broker import Broker
from devtools.service import Service
from penstock import exits, log_records, memory, settings
from penstock.http.token import configured_token
from penstock.plan import plans
from penstock.settings import Settings

VALUES = sorted((Path(__file__).parent / "chart_values").glob("*.yaml"))
MINIMAL = Path(__file__).parent / "chart_values" / "minimal.yaml"
VERSIONS = tuple(f"1.{minor}" for minor in range(31, 38))
NEWEST = VERSIONS[-1]

Tool = Callable[[str], Path]
Object = dict[str, Any]

each_set = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.name)


@pytest.fixture(autouse=True)
def _helm_is_needed(tool: Tool) -> None:
    tool("helm")


class Strict(yaml.CSafeLoader):
    """YAML as the API server reads it: a key that is given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"given twice in {sorted(keys)}"
        return super().construct_mapping(node, deep)


@cache
def parsed(text: str) -> tuple[Object, ...]:
    return tuple(d for d in yaml.load_all(text, Strict) if d is not None)


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    binary = tools.find("helm")
    assert binary is not None
    return subprocess.run([binary, *arguments], capture_output=True, text=True, check=False)


def template(version: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return helm("template", "x", chart.CHART, "--kube-version", version, *arguments)


@cache
def text_of(values: Path, version: str = NEWEST) -> str:
    """What is rendered, but for the token, which is another one each time."""
    result = template(version, "-n", "shop", "-f", values)
    assert result.returncode == 0, result.stderr
    return re.sub(r"(?m)^  token: .*$", "  token: made-up", result.stdout)


def rendered(values: Path, version: str = NEWEST) -> tuple[Object, ...]:
    return parsed(text_of(values, version))


def since(values: Path) -> str:
    """The first version that a value set is for: ``name.from-1.35.yaml``."""
    found = re.search(r"\.from-(\d+\.\d+)\.", values.name)
    return found[1] if found else VERSIONS[0]


def find(objects: tuple[Object, ...], kind: str) -> Object:
    (found,) = (o for o in objects if o["kind"] == kind and "-test" not in o["metadata"]["name"])
    return found


def pod_spec(objects: tuple[Object, ...]) -> Object:
    """The spec of the workload's pods."""
    (workload,) = (
        o for o in objects if o["kind"] in {"Deployment", "StatefulSet", "Job", "CronJob"}
    )
    spec = workload["spec"]
    if workload["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    found: Object = spec["template"]["spec"]
    return found


def container(objects: tuple[Object, ...]) -> Object:
    spec = pod_spec(objects)
    (found,) = (
        c for c in spec["containers"] + spec.get("initContainers", []) if c["name"] == "penstock"
    )
    return dict(found)


def values_yaml() -> Object:
    loaded: Object = yaml.load((chart.CHART / "values.yaml").read_text(), Strict)
    return loaded


# -- it renders ------------------------------------------------------------------------


@each_set
def test_lint_has_nothing_to_say(values: Path) -> None:
    result = helm(
        "lint", "--strict", "--quiet", chart.CHART, "--kube-version", NEWEST, "-f", values
    )
    assert result.returncode == 0, result.stdout
    assert "WARNING" not in result.stdout


@each_set
def test_it_renders_on_every_version(values: Path) -> None:
    # Where a version decides something, each of them; elsewhere the oldest and the newest.
    looked_at = (
        VERSIONS if values == MINIMAL or since(values) != VERSIONS[0] else (VERSIONS[0], NEWEST)
    )
    for version in looked_at:
        if (1, int(version[2:])) < (1, int(since(values)[2:])):
            refused = template(version, "-f", values)
            assert refused.returncode != 0, version
            continue
        objects = rendered(values, version)
        names = [(o["apiVersion"], o["kind"], o["metadata"]["name"]) for o in objects]
        assert len(names) == len(set(names))
        assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", n[2]) for n in names)
        assert container(objects)["image"]
        assert text_of(values, version) == text_of(values), "versions are refused, not guessed at"


def test_a_rendering_without_a_cluster_rolls_no_pods() -> None:
    one, two = (template(NEWEST, "-f", MINIMAL).stdout for _ in range(2))
    tokens = [re.findall(r"token: (.*)", text) for text in (one, two)]
    assert tokens[0] != tokens[1]
    assert one.replace(tokens[0][0], "") == two.replace(tokens[1][0], "")


@pytest.mark.parametrize(
    ("values", "change"),
    [
        ("handlers.yaml", ["--set", r"handlers.files.orders\.py=app"]),
        ("minimal.yaml", ["--set", "settings.max_poll_records=7"]),
        ("minimal.yaml", ["--set", "image.tag=other"]),
    ],
)
def test_what_the_service_is_rolls_its_pods(values: str, change: list[str]) -> None:
    path = MINIMAL.with_name(values)
    changed = template(NEWEST, "-n", "shop", "-f", path, *change)
    before = find(rendered(path), "Deployment")["spec"]["template"]
    after = find(parsed(changed.stdout), "Deployment")["spec"]["template"]
    assert before != after


def test_the_suites_beside_the_templates_pass(tool: Tool, tmp_path: Path) -> None:
    binary = tool("helm-unittest")
    copy = shutil.copytree(chart.CHART, tmp_path / "penstock")  # it leaves a folder behind
    result = subprocess.run([binary, "--strict", copy], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    templates = {p.name for p in (chart.CHART / "templates").rglob("*.yaml")}
    suites = "".join(p.read_text() for p in (chart.CHART / "tests").glob("*_test.yaml"))
    assert not {name for name in templates if f"/{name}" not in suites}


def test_the_package_holds_what_an_install_needs(tmp_path: Path) -> None:
    assert helm("package", chart.CHART, "-d", tmp_path).returncode == 0
    (archive,) = tmp_path.glob("penstock-*.tgz")
    with tarfile.open(archive) as tar:
        names = {name.removeprefix("penstock/") for name in tar.getnames()}
    assert {"Chart.yaml", "README.md", "values.yaml", "values.schema.json"} <= names
    assert {"files/rules.yaml", "files/dashboard.json", "files/exits.json"} <= names
    assert "templates/tests/pod.yaml" in names
    assert not {n for n in names if n.startswith("tests/") or n.endswith(".gotmpl")}


# -- it says what the code says --------------------------------------------------------


def test_nothing_generated_has_drifted(tool: Tool) -> None:
    tool("helm-docs")
    drifted = [str(path) for path, text in chart.generated().items() if path.read_text() != text]
    assert not drifted, "run python -m devtools.chart"


def test_the_chart_is_for_this_version() -> None:
    about = yaml.load((chart.CHART / "Chart.yaml").read_text(), Strict)
    assert about["appVersion"] == penstock.__version__


def test_defaults_are_the_services_own() -> None:
    values = values_yaml()
    fields = Settings.model_fields
    assert values["kafka"]["sessionTimeout"] == fields["session_timeout"].default
    assert values["kafka"]["securityProtocol"] == fields["security_protocol"].default
    assert values["kafka"]["tls"]["checkHostname"] == fields["ssl_check_hostname"].default
    assert values["drainTimeout"] == fields["drain_timeout"].default
    assert values["sidecars"]["waitTimeout"] == fields["wait_timeout"].default
    assert values["http"]["port"] == fields["http_port"].default
    termination_log = container(rendered(MINIMAL))["terminationMessagePath"]
    assert termination_log == str(fields["termination_log"].default)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"workers": 3, "fetch_bytes": 4_000_000},
        {"buffer_bytes": 1_500_000_000, "max_poll_records": 5_000, "memory_high": 0.8},
        {"workers": 2, "memory_high": 0},
    ],
)
def test_memory_is_computed_as_the_service_does(tmp_path: Path, given: dict[str, Any]) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"settings": given, "memory": {"subscriptions": 2}}))
    settings = Settings.model_validate({"bootstrap_servers": "kafka:9092", **given})
    bound = memory.bound_of(settings, subscriptions=2)
    least = bound.limit(settings.memory_high)
    found = container(parsed(template(NEWEST, "-f", MINIMAL, "-f", file).stdout))["resources"]
    request, limit = (int(found[k]["memory"].removesuffix("Mi")) for k in ("requests", "limits"))
    assert (request - 1) << 20 < bound.total <= request << 20
    assert (limit - 1) << 20 < least <= limit << 20
    refused = template(
        NEWEST, "-f", MINIMAL, "-f", file, "--set", f"resources.limits.memory={least - 1}"
    )
    assert str(bound).replace(",", "") in refused.stderr
    enough = template(
        NEWEST, "-f", MINIMAL, "-f", file, "--set", f"resources.limits.memory={least}"
    )
    assert enough.returncode == 0, enough.stderr


def test_planned_codes_are_the_contracts() -> None:
    rules = container(rendered(MINIMAL.with_name("restart-rules.from-1.35.yaml")))
    (rule,) = rules["restartPolicyRules"]
    restarting = exits.PLANNED - {exits.Exit.STOPPED}
    assert rule["exitCodes"] == {"operator": "In", "values": list(restarting)}
    job = find(rendered(MINIMAL.with_name("job.yaml")), "Job")
    by_action = {
        rule["action"]: rule["onExitCodes"]["values"]
        for rule in job["spec"]["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    }
    hopeless = [exits.Exit.USAGE, exits.Exit.CONFIG]
    assert by_action == {"Ignore": list(restarting), "FailJob": hopeless}


def test_every_setting_has_one_place() -> None:
    """Settings that the chart does not decide are all in settings.yaml, and only those."""
    text = (chart.CHART / "templates" / "_validate.tpl").read_text()
    found = re.search(r'define "penstock.ownedSettings" -}}\n(.*?){{- end', text, re.DOTALL)
    assert found is not None
    owned = yaml.load(found[1], Strict)
    free = yaml.load(MINIMAL.with_name("settings.yaml").read_text(), Strict)["settings"]
    assert set(owned) | set(free) == set(Settings.model_fields)
    assert not set(owned) & set(free)
    for name in filter(None, owned.values()):
        at: Any = values_yaml()
        for key in name.split("."):
            assert key in at, f"{name}, which {owned} points to, is no value"
            at = at[key]


@each_set
def test_the_service_accepts_what_the_chart_tells_it(
    values: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = container(rendered(values))
    names = [variable["name"] for variable in found["env"]]
    assert len(names) == len(set(names))
    told = environment(found["env"], tmp_path)
    ours = {name: value for name, value in told.items() if name.startswith("PENSTOCK_")}
    assert set(ours) <= {settings.env_name(field) for field in Settings.model_fields}
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    loaded = settings.load({})
    configured_token(loaded)
    if found["args"] == ["run", "penstock.log_records:app"]:
        assert plans(log_records.app)[0].group
    spec = pod_spec(rendered(values))
    assert spec["terminationGracePeriodSeconds"] >= loaded.drain_timeout + 5
    port = found["ports"][0]
    assert (port["name"], port["containerPort"]) == ("http", loaded.http_port)


def environment(variables: list[Object], directory: Path) -> dict[str, str]:
    """The environment as the kubelet would make it; mounted files are files in ``directory``."""
    told = {}
    for variable in variables:
        name, value = variable["name"], variable.get("value", "from-a-secret-or-a-field")
        if str(value).startswith("/etc/penstock/"):
            file = directory / name
            file.write_text("a-token-or-a-password\n")
            value = str(file)
        assert isinstance(value, str), name
        told[name] = value
    return told


@each_set
def test_what_is_mounted_is_there(values: Path) -> None:
    spec = pod_spec(rendered(values))
    volumes = [volume["name"] for volume in spec["volumes"]]
    assert len(volumes) == len(set(volumes))
    for each in spec["containers"] + spec.get("initContainers", []):
        mounts = each.get("volumeMounts", [])
        assert {mount["name"] for mount in mounts} <= set(volumes)
        assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
    service = container(rendered(values))
    files = [v["value"] for v in service["env"] if str(v.get("value")).startswith("/etc/penstock/")]
    paths = [mount["mountPath"] for mount in service["volumeMounts"]]
    assert all(any(Path(file).is_relative_to(path) for path in paths) for file in files)


@pytest.mark.parametrize(
    ("more", "own", "others"),
    [
        ([], ["x-penstock-7d9f8b6c5-x2x7k"], ["x-penstock-eu-7d9f8b6c5-x2x7k", "x-penstock-eu-0"]),
        (
            ["workload.kind=StatefulSet", "staticMembership.enabled=true"],
            ["x-penstock-0", "x-penstock-12"],
            ["x-penstock-eu-0", "x-penstock-7d9f8b6c5-x2x7k"],
        ),
        (["workload.kind=Job"], ["x-penstock-1-x2x7k"], ["x-penstock-eu-1-x2x7k"]),
        (
            ["workload.kind=CronJob", "cronJob.schedule=@daily"],
            ["x-penstock-29384720-x2x7k"],
            ["x-penstock-eu-29384720-x2x7k"],
        ),
    ],
)
def test_alerts_know_their_own_pods(more: list[str], own: list[str], others: list[str]) -> None:
    wishes = [word for wish in ["prometheusRule.enabled=true", *more] for word in ("--set", wish)]
    result = template(NEWEST, "-f", MINIMAL, *wishes, "-s", "templates/prometheusrule.yaml")
    assert result.returncode == 0, result.stderr
    (pattern,) = set(re.findall(r'pod=~\\?"([^"\\]*)', result.stdout)) - {"%q"}
    assert all(re.fullmatch(pattern, pod) for pod in own)
    assert not any(re.fullmatch(pattern, pod) for pod in others)


def test_alerts_look_at_their_own_release() -> None:
    rule = find(rendered(MINIMAL.with_name("monitoring.yaml")), "PrometheusRule")
    text = json.dumps(rule["spec"])
    scope = r"container=\"penstock\",namespace=\"shop\",pod=~\"x-penstock-[a-z0-9]+-[a-z0-9]{5}\""
    assert text.count(r"container=\"penstock\"") == text.count(scope) > 0
    source = yaml.load((chart.CHART / "files" / "rules.yaml").read_text(), Strict)
    alerts = {r["alert"] for g in source["groups"] for r in g["rules"]}
    kept = {r["alert"]: r for g in rule["spec"]["groups"] for r in g["rules"]}
    assert set(kept) == alerts - {"PenstockLagGrowing"}
    for name, each in kept.items():
        assert each["annotations"]["runbook_url"] == (
            f"https://example.com/penstock/docs/runbooks/{name}.md"
        )


def test_the_dashboard_arrives_whole() -> None:
    configmap = find(rendered(MINIMAL.with_name("monitoring.yaml")), "ConfigMap")
    source = (chart.CHART / "files" / "dashboard.json").read_text()
    assert json.loads(configmap["data"]["penstock.json"]) == json.loads(source)


def test_handler_files_arrive_as_they_are() -> None:
    path = MINIMAL.with_name("handlers.yaml")
    given = yaml.load(path.read_text(), Strict)["handlers"]["files"]
    assert find(rendered(path), "ConfigMap")["data"] == given


# -- values and their schema -----------------------------------------------------------


def test_schema_and_values_name_the_same_things() -> None:
    schema = json.loads((chart.CHART / "values.schema.json").read_text())
    del schema["properties"]["global"], schema["properties"]["settings"]  # Helm's; the code's
    values = values_yaml()
    del values["settings"]
    assert set(_leaves(values, schema)) == set(_properties(schema))


def _leaves(values: Mapping[str, Any], schema: Object, at: str = "") -> Iterator[str]:
    """Every value down to where the schema no longer looks."""
    for key, value in values.items():
        path = f"{at}.{key}"
        inner = _resolved(schema["properties"].get(key, {}), schema)
        if isinstance(value, dict) and value and "properties" in inner:
            yield from _leaves(value, inner | {"definitions": schema["definitions"]}, path)
        else:
            yield path


def _properties(schema: Object, at: str = "") -> Iterator[str]:
    optional = {".lifecycle", ".keda.authenticationRef", ".resources"}
    for key, inner in schema["properties"].items():
        path = f"{at}.{key}"
        found = _resolved(inner, schema) | {"definitions": schema["definitions"]}
        if path == ".resources":
            yield from (".resources.requests", ".resources.limits")
        elif "properties" in found and path not in optional:
            yield from _properties(found, path)
        else:
            yield path


def _resolved(inner: Object, schema: Object) -> Object:
    reference = inner.get("$ref", "").removeprefix("#/definitions/")
    resolved: Object = schema["definitions"][reference] if reference else inner
    return resolved


def test_the_schema_knows_every_name_that_is_ours() -> None:
    schema = json.loads((chart.CHART / "values.schema.json").read_text())
    # A container and the like are Kubernetes': there, only a name is asked for.
    named = schema["definitions"].pop("named")
    assert named["items"]["required"] == ["name"]
    open_ones = [s for s in _objects(schema) if s.get("additionalProperties") is not False]
    assert not [s for s in open_ones if "properties" in s]


def _objects(schema: Any) -> Iterator[Object]:
    if isinstance(schema, dict):
        if "properties" in schema and isinstance(schema["properties"], dict):
            yield schema
        for inner in schema.values():
            yield from _objects(inner)


# -- what cannot work ------------------------------------------------------------------

BAD = {
    "no brokers": (
        ["kafka.bootstrapServers="],
        "kafka.bootstrapServers is not set: name the brokers",
    ),
    "a broker without a port": (
        ["kafka.bootstrapServers={kafka:9092,kafka}"],
        'kafka.bootstrapServers: "kafka" is not host:port',
    ),
    "no topics for the default app": (["topics=null"], "topics is empty: name what"),
    "a typo": (["kafka.bootstrapServer=k:1"], "'bootstrapServer' not allowed"),
    "a typo at the top": (["replica=2"], "'replica' not allowed"),
    "a typo in a setting": (["settings.drain_timout=2"], "'drain_timout' not allowed"),
    "a setting out of range": (["settings.concurrency=0"], "at '/settings/concurrency': minimum"),
    "a setting of another type": (["settings.log_level=LOUD"], "at '/settings/log_level': value"),
    "a negative timeout": (["drainTimeout=-1"], "at '/drainTimeout': minimum: got -1, want 1"),
    "a setting that is a value": (
        ["settings.drain_timeout=60"],
        "settings.drain_timeout is decided by a value of the chart: set drainTimeout instead",
    ),
    "a setting that the chart mounts": (
        ["settings.state_dir=/data"],
        "settings.state_dir is where the chart mounts it: leave it out",
    ),
    "a listener that no probe reaches": (
        ["settings.http_host=127.0.0.1"],
        "settings.http_host is 127.0.0.1: the kubelet's probes come from outside",
    ),
    "a variable that the chart sets": (
        ["extraEnv[0].name=PENSTOCK_GROUP_ID", "extraEnv[0].value=y"],
        "extraEnv: PENSTOCK_GROUP_ID is set by the chart as well",
    ),
    "handler files and no app": (
        [r"handlers.files.orders\.py=pass"],
        "set app to MODULE:APP of one of the files, for example orders:app",
    ),
    "a grace too short": (
        ["drainTimeout=60", "terminationGracePeriodSeconds=30"],
        "= 65 s, terminationGracePeriodSeconds is 30: raise it or lower drainTimeout",
    ),
    "a margin too small": (
        ["terminationGraceMargin=2"],
        "= 30 s, and terminationGraceMargin allows 2 s: raise it to 5 or more",
    ),
    "a start too short for a dead predecessor": (
        ["probes.startup.failureThreshold=11"],
        "= 60 s, probes.startup gives up after 5 s x 11 = 55 s: raise its failureThreshold",
    ),
    "a start too short for a sidecar": (
        [
            "probes.startup.failureThreshold=20",
            "sidecars.waitUrls={http://localhost:1/}",
        ],
        "+ 60 s for sidecars + 15 s to join = 120 s, probes.startup gives up after 5 s x 20",
    ),
    "an impatient liveness": (
        ["probes.liveness.failureThreshold=1"],
        "probes.liveness kills after 10 s x 1 = 10 s",
    ),
    "a StatefulSet without static membership": (
        ["workload.kind=StatefulSet"],
        "set staticMembership.enabled=true, or workload.kind=Deployment",
    ),
    "static membership in a Deployment": (
        ["staticMembership.enabled=true"],
        "staticMembership.enabled needs workload.kind=StatefulSet: the pod names of a Deployment",
    ),
    "replicas of a Job": (
        ["workload.kind=Job", "replicas=2"],
        "replicas is for a Deployment or StatefulSet: set job.parallelism",
    ),
    "a CronJob that never runs": (["workload.kind=CronJob"], "cronJob.schedule is not set"),
    "another kind": (["workload.kind=DaemonSet"], "at '/workload/kind': value must be one of"),
    "rules with a classic sidecar": (
        ["restartPolicy=rules", "extraContainers[0].name=proxy"],
        "use nativeSidecars, or restartPolicy=always",
    ),
    "rules with a classic mesh": (
        ["restartPolicy=rules", "mesh.istio.classic=true"],
        "restartPolicy=rules does not go with classic sidecars",
    ),
    "rules for a Job": (
        ["restartPolicy=rules", "workload.kind=Job"],
        "its podFailurePolicy ignores exit 4 already; set restartPolicy=always",
    ),
    "rules for a sidecar": (
        [
            "restartPolicy=rules",
            "asSidecar.enabled=true",
            "asSidecar.mainContainers[0].name=web",
        ],
        "restartPolicy=rules does nothing for a native sidecar",
    ),
    "a stop signal for a Job": (
        ["stopSignal=SIGUSR2", "workload.kind=Job"],
        "an evicted pod would exit 0 as if its work were done; leave it empty",
    ),
    "no hook for a Job": (
        ["preStop.enabled=false", "workload.kind=Job"],
        "an evicted pod would get a plain TERM and exit 0 as if its work were done",
    ),
    "quit URLs in a Deployment": (
        ["sidecars.quitUrls={http://localhost:9091/quitquitquit}"],
        "sidecars.quitUrls is for Job and CronJob: in a Deployment the pod lives on",
    ),
    "quit URLs beside main containers": (
        [
            "workload.kind=Job",
            "sidecars.quitUrls={http://localhost:1/quit}",
            "asSidecar.enabled=true",
            "asSidecar.mainContainers[0].name=web",
        ],
        "sidecars.quitUrls does not go with asSidecar.enabled",
    ),
    "a sidecar somewhere else": (
        ["sidecars.waitUrls={http://proxy:1/ready}"],
        "sidecars: http://proxy:1/ready is not on loopback",
    ),
    "a native sidecar that is none": (
        ["nativeSidecars[0].name=proxy", "nativeSidecars[0].restartPolicy=Never"],
        "nativeSidecars: proxy has restartPolicy Never",
    ),
    "a sidecar of nothing": (["asSidecar.enabled=true"], "without asSidecar.mainContainers"),
    "main containers beside a main container": (
        ["asSidecar.mainContainers[0].name=web"],
        "asSidecar.mainContainers is set but asSidecar.enabled is false",
    ),
    "KEDA with fixed replicas": (
        ["keda.enabled=true", "replicas=3"],
        "leave replicas out and set keda.minReplicas and keda.maxReplicas",
    ),
    "KEDA with a Job": (
        ["keda.enabled=true", "workload.kind=Job"],
        "keda.enabled is for a Deployment or StatefulSet, not for a Job",
    ),
    "KEDA between impossible numbers": (
        ["keda.enabled=true", "keda.minReplicas=20"],
        "keda.minReplicas 20 is above keda.maxReplicas 10",
    ),
    "KEDA in the dark": (
        ["keda.enabled=true", "app=shop:app", "topics=null"],
        "set keda.topics to the topics that the app's code reads",
    ),
    "KEDA without a group": (
        ["keda.enabled=true", "app=shop:app"],
        "set keda.consumerGroup to the one in the app's code, or group",
    ),
    "KEDA without credentials": (
        ["keda.enabled=true", "kafka.securityProtocol=SSL"],
        "set keda.authenticationRef.name to a TriggerAuthentication",
    ),
    "SASL without a mechanism": (
        ["kafka.securityProtocol=SASL_SSL"],
        "kafka.securityProtocol is SASL_SSL without kafka.sasl.mechanism",
    ),
    "SASL without a user": (
        [
            "kafka.securityProtocol=SASL_SSL",
            "kafka.sasl.mechanism=PLAIN",
            "kafka.sasl.existingSecret=s",
        ],
        "needs a user: set kafka.sasl.username",
    ),
    "SASL without a password": (
        [
            "kafka.securityProtocol=SASL_SSL",
            "kafka.sasl.mechanism=PLAIN",
            "kafka.sasl.username=u",
        ],
        "needs a password: set kafka.sasl.existingSecret",
    ),
    "two passwords": (
        [
            "kafka.securityProtocol=SASL_SSL",
            "kafka.sasl.mechanism=PLAIN",
            "kafka.sasl.username=u",
            "kafka.sasl.password=p",
            "kafka.sasl.existingSecret=s",
        ],
        "kafka.sasl.password and kafka.sasl.existingSecret are both set: keep one",
    ),
    "two users": (
        [
            "kafka.securityProtocol=SASL_SSL",
            "kafka.sasl.mechanism=PLAIN",
            "kafka.sasl.username=u",
            "kafka.sasl.usernameKey=u",
            "kafka.sasl.existingSecret=s",
        ],
        "kafka.sasl.username and kafka.sasl.usernameKey are both set: keep one",
    ),
    "a user's key without a Secret": (
        [
            "kafka.securityProtocol=SASL_SSL",
            "kafka.sasl.mechanism=PLAIN",
            "kafka.sasl.usernameKey=u",
            "kafka.sasl.password=p",
        ],
        "kafka.sasl.usernameKey is a key of kafka.sasl.existingSecret, which is not set",
    ),
    "SASL in plain text": (
        ["kafka.sasl.username=u"],
        "kafka.securityProtocol is PLAINTEXT: set it to SASL_SSL or SASL_PLAINTEXT",
    ),
    "TLS in plain text": (
        ["kafka.tls.caSecret=ca"],
        "kafka.securityProtocol is PLAINTEXT: set it to SSL or SASL_SSL",
    ),
    "a key's password without a key": (
        ["kafka.tls.keyPasswordKey=pw"],
        "kafka.tls.keyPasswordKey is a key of kafka.tls.clientSecret, which is not set",
    ),
    "a limit below what may be buffered": (
        ["settings.workers=2", "resources.limits.memory=512Mi"],
        (
            "resources.limits.memory is 512Mi = 537 MB, and the service may take supervisor 64 + "
            "2 x (base 64 + buffer 64 + fetch 40 + handlers 64) = 529 MB / 0.9 "
            "(settings.memory_high) = 588 MB: leave it out or set 561Mi"
        ),
    ),
    "a limit that is no number": (
        ["resources.limits.memory=lots"],
        "resources.limits.memory: lots is not a number of bytes such as 512Mi",
    ),
    "an alert that is none": (
        ["prometheusRule.disabled={PenstockTypo}"],
        "there is no alert PenstockTypo; there are PenstockUnplannedExit",
    ),
}


OLD = {
    "rules before there were any": (
        "1.33",
        ["restartPolicy=rules"],
        "v1.33: set restartPolicy=always",
    ),
    "a gate that is not there yet": (
        "1.33",
        ["restartPolicy=rules", "featureGates.ContainerRestartRules=true"],
        "restartPolicy=rules needs Kubernetes 1.35",
    ),
    "rules behind a gate": (
        "1.34.2-gke.100",
        ["restartPolicy=rules"],
        "switch the gate on in the cluster and set featureGates.ContainerRestartRules=true",
    ),
    "a stop signal before there were any": (
        "1.33",
        ["stopSignal=SIGUSR2"],
        "stopSignal needs Kubernetes 1.34 with the gate ContainerStopSignals",
    ),
}


@cache
def refusal(version: str, *given: str) -> str:
    """What the chart says to these values."""
    result = template(version, "-f", MINIMAL, *(a for value in given for a in ("--set", value)))
    assert result.returncode != 0
    return result.stderr


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_refused_with_the_remedy(name: str) -> None:
    given, sentence = BAD[name]
    assert sentence in refusal(NEWEST, *given)


@pytest.mark.parametrize("name", OLD)
def test_old_versions_are_told_what_they_lack(name: str) -> None:
    version, given, sentence = OLD[name]
    assert sentence in refusal(version, *given)


def test_versions_that_the_chart_does_not_know_are_refused() -> None:
    assert "chart requires kubeVersion: >=1.31.0-0" in refusal("1.30")


def test_every_sentence_of_the_chart_is_tried() -> None:
    text = (chart.CHART / "templates" / "_validate.tpl").read_text()
    problems = re.findall(
        r'define "penstock\.problems.*?(?=^{{- define|\Z)', text, re.MULTILINE | re.DOTALL
    )
    sentences = re.findall(r"(?m)^[^{\n/].*$", "\n".join(p.partition("\n")[2] for p in problems))
    said = "".join(refusal(NEWEST, *given) for given, _ in BAD.values())
    said += "".join(refusal(version, *given) for version, given, _ in OLD.values())
    for sentence in sentences:
        pattern = ".*".join(map(re.escape, re.split(r"{{.*?}}", sentence)))
        assert re.search(pattern, said), sentence
    assert len(sentences) > 40


@pytest.mark.parametrize("version", ["1.35.0-alpha.1", "1.35.3-gke.100", "1.36.1+k3s1"])
def test_versions_with_a_providers_suffix_count(version: str) -> None:
    result = template(version, "-f", MINIMAL, "--set", "restartPolicy=rules")
    assert result.returncode == 0, result.stderr


# -- helm test -------------------------------------------------------------------------


@pytest.mark.kafka
def test_the_test_pod_asks_a_real_service(
    broker: Broker, topic: str, group: str, make_service: Callable[..., Service]
) -> None:
    service = make_service(
        "penstock.log_records:app",
        bootstrap_servers=broker.bootstrap,
        topics=topic,
        group_id=group,
    )
    assert ask(service.port).returncode == 1
    service.start().until_ready()
    answer = ask(service.port)
    assert answer.returncode == 0, answer.stdout
    assert answer.stdout == "".join(
        f"127.0.0.1 /{p} 200\n" for p in ("startupz", "livez", "readyz")
    )
    service.command("quiet")
    service.until(lambda: service.get("/readyz")[0] == 503, "not ready")
    answer = ask(service.port)
    assert answer.returncode == 1
    assert "/readyz 503" in answer.stdout
    assert "/livez 200" in answer.stdout


def test_the_test_pod_fails_where_there_is_no_pod() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        answer = ask(nobody.getsockname()[1])
    assert answer.returncode == 1
    assert "no answer" in answer.stdout
    assert "resolves to no pod" in ask(8080, "nobody.invalid").stdout


def ask(port: int, name: str = "127.0.0.1") -> subprocess.CompletedProcess[str]:
    """Run the test pod's command as it is rendered, at this service instead of at pods."""
    (pod,) = (o for o in rendered(MINIMAL) if o["kind"] == "Pod")
    (asking,) = pod["spec"]["containers"]
    python, *command = asking["command"]
    assert python == "python3"
    assert asking["args"] == ["x-penstock-test.shop.svc", "8080", "120"]
    return subprocess.run(
        [sys.executable, *command, name, str(port), "0"],
        capture_output=True,
        text=True,
        check=False,
    )
