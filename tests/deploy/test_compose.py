"""compose.yaml, read by Docker's own loader; and its steps, run in the image it builds."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock
from devtools.broker import Broker
from devtools.image import WRITABLE, Container, Images
from devtools.service import free_port
from penstock.settings import load

pytestmark = pytest.mark.timeout(600)  # as in test_image: the first build on a machine

ROOT = Path(__file__).resolve().parents[2]
ONCE = {"topic"}  #: ends by itself
OURS = {"topic", "orders", "penstock"}  #: run our image
MARGIN = 10  # seconds that a drain's end may take until Docker's patience ends


@pytest.fixture(scope="session")
def services(tool: Callable[[str], Path]) -> dict[str, dict[str, Any]]:
    command = [str(tool("compose-config")), str(ROOT / "compose.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["services"])


@pytest.fixture
def service(services: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return services["penstock"]


def test_what_is_in_it(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {"kafka", *OURS, "prometheus", "grafana"}
    assert service_names("depends_on", services["orders"]) == {"topic"}
    assert service_names("depends_on", services["penstock"]) == {"topic"}


def test_every_mounted_file_is_there(services: dict[str, dict[str, Any]]) -> None:
    mounts = [m for s in services.values() for m in s.get("volumes", []) if m["type"] == "bind"]

    assert len(mounts) == 4
    for mount in mounts:
        assert Path(mount["source"]).is_relative_to(ROOT)
        assert Path(mount["source"]).exists()
        assert mount["read_only"]


def test_prometheus_finds_rules_and_service(services: dict[str, dict[str, Any]]) -> None:
    config = (ROOT / "monitoring/prometheus.yaml").read_text()
    mounted = binds(services["prometheus"])
    (rules,) = re.findall(r"^rule_files:\n  - (\S+)$", config, re.MULTILINE)
    (target,) = re.findall(r'targets: \["(.*)"\]', config)

    assert mounted["/etc/prometheus/prometheus.yml"] == ROOT / "monitoring/prometheus.yaml"
    assert mounted[f"/etc/prometheus/{rules}"] == ROOT / "helm/penstock/files/rules.yaml"
    assert target == "penstock:8080"
    assert target.partition(":")[0] in services


def test_grafana_finds_dashboard_and_prometheus(services: dict[str, dict[str, Any]]) -> None:
    mounted = binds(services["grafana"])
    provisioning = mounted["/etc/grafana/provisioning"]
    (folder,) = re.findall(
        r"^      path: (\S+)$",
        (provisioning / "dashboards/penstock.yaml").read_text(),
        re.MULTILINE,
    )
    source = (provisioning / "datasources/prometheus.yaml").read_text()

    assert mounted[f"{folder}/penstock.json"] == ROOT / "helm/penstock/files/dashboard.json"
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{folder}/penstock.json"
    assert "url: http://prometheus:9090\n" in source


def test_its_settings_are_settings(
    services: dict[str, dict[str, Any]], built: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = dict(line.split("=", 1) for line in built.service.config["Env"])
    env = image | services["penstock"]["environment"]
    for name, value in env.items():
        if name.startswith("PENSTOCK_"):
            monkeypatch.setenv(name, value)

    settings = load({}, {name: value for name, value in env.items() if value is not None})

    assert settings.bootstrap_servers == ("kafka:19092",)
    assert settings.topics == ("orders",)


def test_a_drain_has_time(service: dict[str, Any]) -> None:
    drain = float(service["environment"]["PENSTOCK_DRAIN_TIMEOUT"])

    assert seconds(service["stop_grace_period"]) >= drain + MARGIN


def test_a_restart_comes_back_and_a_stop_does_not(service: dict[str, Any]) -> None:
    assert service["restart"] == "on-failure"  # without a number: that many planned ones end it


def test_the_service_may_do_no_more_than_it_needs(
    services: dict[str, dict[str, Any]], service: dict[str, Any], built: Images
) -> None:
    for name in OURS:
        ours = services[name]
        assert ours["read_only"]
        assert ours["cap_drop"] == ["ALL"]
        assert ours["security_opt"] == ["no-new-privileges"]
        assert "user" not in ours  # the image's
        mounted = {*ours.get("tmpfs", []), *(m["target"] for m in ours.get("volumes", []))}
        assert mounted >= set(built.service.config["Volumes"])  # or they would pile up
    writable = {*service["tmpfs"], *(m["target"] for m in service["volumes"])}
    assert writable == set(WRITABLE)
    assert not any(s.get("privileged") for s in services.values())


def test_ports_are_open_to_this_machine_only(services: dict[str, dict[str, Any]]) -> None:
    ports = [port for s in services.values() for port in s.get("ports", [])]

    assert {port["published"] for port in ports} == {"3000", "8080", "9090", "9092"}
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_images_are_pinned(services: dict[str, dict[str, Any]]) -> None:
    images = {name: s["image"] for name, s in services.items()}
    pom = (ROOT / "devtools/broker/pom.xml").read_text()
    (kafka,) = re.findall(r"<kafka.version>(.*)</kafka.version>", pom)

    for image in images.values():
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", image)
    assert images["kafka"] == f"apache/kafka:{kafka}"  # the broker that the tests use
    assert {images[name] for name in OURS} == {f"penstock:{penstock.__version__}"}


def test_our_image_is_built_and_never_pulled(services: dict[str, dict[str, Any]]) -> None:
    policies = {name: services[name]["pull_policy"] for name in OURS}

    assert policies == {"penstock": "build", "topic": "never", "orders": "never"}
    assert [name for name in services if services[name].get("build")] == ["penstock"]
    assert services["penstock"]["build"]["context"] == str(ROOT)


def test_health_is_asked_of_all_that_serve(
    services: dict[str, dict[str, Any]], built: Images
) -> None:
    asked = {name for name, s in services.items() if s.get("healthcheck", {}).get("test")}

    assert asked == {"kafka", "prometheus", "grafana"}
    assert built.service.config["Healthcheck"]
    assert "healthcheck" not in services["penstock"]  # the image's
    assert all(services[name]["healthcheck"]["disable"] for name in OURS - {"penstock"})
    waited = [
        (other, wait["condition"])
        for s in services.values()
        for other, wait in (s.get("depends_on") or {}).items()
    ]
    for other, condition in waited:
        expected = "service_completed_successfully" if other in ONCE else "service_healthy"
        assert condition == expected
        assert other in asked | ONCE


def test_the_steps_in_our_image_do_their_work(
    tool: Callable[[str], Path],
    services: dict[str, dict[str, Any]],
    built: Images,
    own_broker: Broker,
    tmp_path: Path,
) -> None:
    def step(name: str, number: int = 0) -> Container:
        said = services[name]
        words = [w.replace("kafka:19092", own_broker.bootstrap) for w in said["command"] or []]
        env = {"PENSTOCK_HTTP_PORT": str(free_port())} | (said.get("environment") or {})
        if "PENSTOCK_BOOTSTRAP_SERVERS" in env:
            env["PENSTOCK_BOOTSTRAP_SERVERS"] = own_broker.bootstrap
        directory = tmp_path / f"{name}-{number}"
        entrypoint = said["entrypoint"]
        return Container(
            tool("crun"),
            built.service,
            directory,
            env=env,
            entrypoint=entrypoint,
            command=words,
            tmpfs=said["tmpfs"] + [m["target"] for m in said.get("volumes", [])],
        )

    for number in (0, 1):  # on the second `up` the topic is there
        with step("topic", number) as topic:
            assert topic.wait() == 0, topic.log()
    with step("orders") as orders, step("penstock") as service:
        service.until_ready().until_logged('"value": "order 1"')
        service.until_logged('"value": "order 9"')  # they keep coming
        assert orders.running
        service.kill("USR2")
        assert service.wait() == 4


# -- helpers -----------------------------------------------------------------------------------


def binds(service: dict[str, Any]) -> dict[str, Path]:
    return {m["target"]: Path(m["source"]) for m in service["volumes"] if m["type"] == "bind"}


def service_names(key: str, service: dict[str, Any]) -> set[str]:
    return set(service[key])


def seconds(duration: str) -> float:
    found = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration)
    assert found is not None
    assert duration
    return int(found[1] or 0) * 60 + int(found[2] or 0)
