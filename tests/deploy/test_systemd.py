"""The systemd units: what they say, and what a real systemd makes of it.

The latter in a booted container, beside a real broker. ``docs/systemd.md`` is typed there as it
stands; what it does not show (crashes, bad configuration, an overrun) is tried after it.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import confluent_kafka
import pytest

from devtools.broker import Admin, Broker, have_broker
from devtools.nspawn import ContainerUnavailable
from devtools.rootfs import TreeUnavailable, debian_tree
from devtools.service import free_port
from devtools.wheels import WheelsUnavailable, wheelhouse
from penstock.exits import Exit
from penstock.settings import Settings
from tests.conftest import unavailable
from tests.deploy.machine import Machine, boot
from tests.deploy.typed import as_shown, steps_of

# Whichever test comes first on a new machine bootstraps a Debian and fills a wheelhouse.
pytestmark = pytest.mark.timeout(900)

_ROOT = Path(__file__).resolve().parents[2]
_UNITS = _ROOT / "systemd"
_PLAIN = "penstock.service"
_TEMPLATE = "penstock@.service"

#: Seconds between the drain's deadline and TimeoutStopSec.
_MARGIN = 10

# -- the unit files -------------------------------------------------------------------------


def _entries(text: str) -> dict[str, list[str]]:
    """Every ``name=value``, in order."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def _unit(name: str) -> dict[str, list[str]]:
    return _entries((_UNITS / name).read_text())


def test_exit_codes_are_the_tables() -> None:
    unit = _unit(_PLAIN)
    assert unit["SuccessExitStatus"] == [f"{Exit.RESTART:d} SIGUSR2"]
    assert unit["RestartForceExitStatus"] == [f"{Exit.RESTART:d} SIGUSR2 SIGHUP"]
    assert unit["RestartPreventExitStatus"] == [f"{Exit.USAGE:d} {Exit.CONFIG:d}"]


def test_stop_timeout_covers_the_drain() -> None:
    drain = float(Settings.model_fields["drain_timeout"].default)
    assert _unit(_PLAIN)["TimeoutStopSec"] == [f"{drain + _MARGIN:.0f}"]


def test_environment_is_settings() -> None:
    for name in (_PLAIN, _TEMPLATE):
        assigned = " ".join(_unit(name)["Environment"]).split()
        names = {word.partition("=")[0] for word in assigned} - {"APP"}
        known = {f"PENSTOCK_{field.upper()}" for field in Settings.model_fields}
        assert names
        assert names <= known
    offered = re.findall(r"^#?(PENSTOCK_\w+)=", (_UNITS / "penstock.env").read_text(), re.MULTILINE)
    assert set(offered) <= known


def test_template_differs_only_by_the_instance() -> None:
    plain, template = _unit(_PLAIN), _unit(_TEMPLATE)
    differing = {key for key in plain if plain[key] != template.get(key)}
    assert set(template) == set(plain)
    assert differing == {
        "Description",
        "Environment",
        "EnvironmentFile",
        "RuntimeDirectory",
        "StateDirectory",
    }


def _checked(analyze: Path, root: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [analyze, "verify", "--man=no", f"--root={root}", *names],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def unit_root(tmp_path: Path) -> Path:
    """A root file system with what the units refer to, and nothing else."""
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    for name in (_PLAIN, _TEMPLATE):
        (units / name).write_text((_UNITS / name).read_text())
    # What stands around every unit: missing ones would be warned of.
    for name in ("basic", "network-online", "multi-user", "sysinit", "shutdown"):
        (units / f"{name}.target").write_text(f"[Unit]\nDescription={name}\n")
    for slice_ in ("system.slice", "-.slice", "system-penstock.slice"):
        (units / slice_).write_text("[Unit]\nDescription=slice\n")
    for command in ("opt/penstock/bin/penstock", "bin/sh"):
        (tmp_path / command).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / command).write_text("#!/bin/sh\n")
        (tmp_path / command).chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("name", [_PLAIN, "penstock@orders.service"])
def test_units_verify(tool: Callable[[str], Path], unit_root: Path, name: str) -> None:
    done = _checked(tool("systemd-analyze"), unit_root, name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("KillMode=mixed", "KillMode=mixt"),
        ("OOMPolicy=continue", "OmPolicy=continue"),
        ("bin/penstock run", "bin/penstok run"),
    ],
)
def test_verify_sees_mistakes(
    tool: Callable[[str], Path], unit_root: Path, was: str, becomes: str
) -> None:
    path = unit_root / "etc/systemd/system" / _PLAIN
    text = path.read_text()
    assert was in text
    path.write_text(text.replace(was, becomes))
    done = _checked(tool("systemd-analyze"), unit_root, _PLAIN)
    assert done.returncode or done.stderr


def test_shown_lines_are_compared() -> None:
    shows = ("NRestarts=1", "… [x] …", "end")
    assert as_shown("a\nNRestarts=1\nb [x] c\nend\n", shows)
    assert not as_shown("a\nNRestarts=2\nb [x] c\nend\n", shows)
    assert not as_shown("b [x] c\nNRestarts=1\nend\n", shows)
    assert not as_shown("NRestarts=1\nb x c\nend\n", shows)


# -- a real systemd ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """One for the names of the documentation: its topics and groups are not other tests'."""
    reason = have_broker()
    if reason is not None:
        unavailable("kafka", reason)
    with Broker() as running:
        yield running


@pytest.fixture(scope="module")
def machine(tool: Callable[[str], Path], broker: Broker) -> Iterator[Machine]:
    """A machine with Penstock installed as the documentation says."""
    tool("debootstrap")
    tool("systemd-nspawn")
    if os.geteuid() != 0:
        unavailable("systemd", "booting a container needs root")
    try:
        tree = debian_tree()
        python = (tree / "usr/bin/python3").readlink().name.removeprefix("python")
        with boot(tree, wheelhouse(python)) as container:
            machine = Machine(container, broker.bootstrap)
            machine.install(next(steps_of(_page())))
            obedient = (_ROOT / "devtools/apps/obedient.py").read_text()
            container.write("/opt/penstock/handlers/obedient.py", obedient)
            yield machine
    except (ContainerUnavailable, TreeUnavailable, WheelsUnavailable) as error:
        unavailable("systemd", str(error))


def _page() -> str:
    return (_ROOT / "docs/systemd.md").read_text()


def test_documentation_as_typed(machine: Machine, broker: Broker) -> None:
    Admin(broker.bootstrap).create_topic("orders", 2)
    for steps in itertools.islice(steps_of(_page()), 1, None):
        if not steps[0].path:
            # What "put brokers, topics and group into penstock.env" stands for.
            path = machine.container.root / "etc/penstock/penstock.env"
            path.write_text(machine.localised(path.read_text()))
        for step in steps:
            machine.take(step)
    assert machine.type("systemctl --failed --plain --no-legend") == ""
    machine.type("systemctl stop penstock@orders penstock@audit")


_names = (f"case{number}" for number in itertools.count(1))


class Instance:
    """One ``penstock@NAME`` with a topic, a group and a port of its own."""

    def __init__(self, machine: Machine, **settings: object) -> None:
        self.name = next(_names)
        self.unit = f"penstock@{self.name}"
        self.port = free_port()
        self.container = machine.container
        self._admin = Admin(machine.bootstrap)
        self._admin.create_topic(self.name, 1)
        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": machine.bootstrap, "log_level": 0}
        )
        values = {
            "bootstrap_servers": machine.bootstrap,
            "topics": self.name,
            "group_id": self.name,
            "http_host": "127.0.0.1",
            "http_port": self.port,
            **settings,
        }
        lines = [f"PENSTOCK_{name.upper()}={value}" for name, value in values.items()]
        text = "\n".join(["APP=obedient:app", *lines, ""])
        self.container.write(f"/etc/penstock/{self.name}.env", text)

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        return self.container.run("systemctl", *arguments, self.unit, check=check)

    def signal(self, name: str) -> None:
        self.systemctl("kill", f"--signal={name}", "--kill-whom=main")

    def drop_in(self, text: str) -> None:
        self.container.write(f"/etc/systemd/system/{self.unit}.service.d/test.conf", text)
        self.container.run("systemctl", "daemon-reload")

    def start(self) -> Instance:
        self.systemctl("start")
        return self.until_ready()

    def until_ready(self) -> Instance:
        self.container.until(lambda: self.get("/readyz"), f"readiness of {self.unit}")
        return self

    def show(self, *names: str) -> tuple[str, ...]:
        shown = self.container.show(self.unit, *names)
        return tuple(shown[name] for name in names)

    def until_shown(self, **wanted: str) -> None:
        names, values = tuple(wanted), tuple(wanted.values())
        self.container.until(lambda: self.show(*names) == values, f"{wanted} of {self.unit}")

    @property
    def main_pid(self) -> str:
        return self.show("MainPID")[0]

    def journal(self) -> str:
        return self.container.run("journalctl", f"--unit={self.unit}", "--output=cat", "--no-pager")

    def until_logged(self, text: str) -> None:
        self.container.until(lambda: text in self.journal(), f"{text!r} in the journal")

    def get(self, path: str) -> bytes:
        """Empty unless it answers 200."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                body: bytes = answer.read()
        except OSError:
            return b""
        return body

    def status(self) -> dict[str, object]:
        return dict(json.loads(self.get("/status") or b"{}"))

    def workers(self) -> list[int]:
        """Their pids, as the container counts."""
        found = self.status().get("workers", [])
        assert isinstance(found, list)
        return [worker["pid"] for worker in found]

    def metric(self, name: str) -> float:
        for line in self.get("/metrics").decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"no {name}")

    def send(self, *orders: str) -> None:
        for order in orders:
            self._producer.produce(self.name, order.encode())
        assert self._producer.flush(20) == 0

    def until_handling(self) -> None:
        self.container.until(
            lambda: self.metric("penstock_in_flight_records") == 1, "a record in flight"
        )

    def committed(self) -> int | None:
        return self._admin.committed_offsets(self.name, self.name).get(0)

    def processes(self) -> str:
        """What is left in the unit's cgroup."""
        path = self.show("ControlGroup")[0]
        return self.container.run("sh", "-c", f"cat /sys/fs/cgroup{path}/cgroup.procs || true")


@pytest.fixture
def instance(machine: Machine) -> Iterator[Callable[..., Instance]]:
    """Make instances that are stopped with the test."""
    made: list[Instance] = []

    def make(**settings: object) -> Instance:
        made.append(Instance(machine, **settings))
        return made[-1]

    yield make
    for one in made:
        one.systemctl("kill", "--signal=KILL", check=False)
        one.systemctl("stop", check=False)


Make = Callable[..., Instance]

#: Where nothing has to be seen between an exit and the next start.
_AT_ONCE = "[Service]\nRestartSec=200ms\n"


def test_usr2_restarts_without_failing(instance: Make) -> None:
    one = instance().start()
    before = one.main_pid
    one.send("sleep 1")
    one.until_handling()
    one.signal("USR2")
    one.until_shown(SubState="auto-restart", ExecMainCode="1", ExecMainStatus="4", Result="success")
    assert one.committed() == 1
    one.until_ready()
    assert one.show("ActiveState", "SubState", "NRestarts") == ("active", "running", "1")
    assert one.main_pid not in {"0", before}
    assert "Failed with result" not in one.journal()
    one.until_logged('"code": 4, "name": "RESTART", "planned": true')
    assert one.metric("penstock_unplanned_exits_total") == 0


def test_stop_drains_and_stays_down(instance: Make) -> None:
    one = instance().start()
    one.send("", "", "sleep 1")
    one.until_handling()
    one.systemctl("stop")
    assert one.show("ActiveState", "SubState", "Result", "ExecMainStatus", "NRestarts") == (
        *("inactive", "dead", "success", "0", "0"),
    )
    assert one.committed() == 3
    one.until_logged('"code": 0, "name": "STOPPED", "planned": true')


@pytest.mark.parametrize(
    ("victim", "says"),
    [
        ("supervisor", "Failed with result 'signal'"),
        ("worker", "status=137"),
        ("order", "status=1/FAILURE"),
    ],
)
def test_crash_is_a_failure_restarted_and_counted(instance: Make, victim: str, says: str) -> None:
    one = instance()
    one.drop_in(_AT_ONCE)
    one.start()
    match victim:
        case "supervisor":
            one.signal("KILL")
        case "worker":
            one.container.run("sh", "-c", f"kill -KILL {one.workers()[0]}")
        case _:
            one.send("exit 7")
    one.until_logged("Scheduled restart job, restart counter is at 1.")
    one.until_logged(says)
    one.until_logged("Failed with result")
    one.until_ready()
    assert one.show("ActiveState", "NRestarts") == ("active", "1")
    assert one.metric("penstock_unplanned_exits_total") == 1


@pytest.mark.parametrize("setting", [{"workers": "many"}, {"wrokers": 2}])
def test_bad_configuration_is_not_tried_again(instance: Make, setting: dict[str, object]) -> None:
    one = instance(**setting)
    one.systemctl("start", check=False)
    one.until_shown(ActiveState="failed", SubState="failed", ExecMainStatus="78", NRestarts="0")
    one.until_logged(f"PENSTOCK_{next(iter(setting)).upper()}")


def test_missing_settings_are_named(instance: Make) -> None:
    one = instance()
    # The documentation has made a file for all instances.
    one.container.run("rm", "-f", "/etc/penstock/common.env", f"/etc/penstock/{one.name}.env")
    one.systemctl("start", check=False)
    one.until_shown(SubState="failed", ExecMainStatus="78")
    one.until_logged("PENSTOCK_BOOTSTRAP_SERVERS")


def test_reload_replaces_the_workers(instance: Make) -> None:
    one = instance().start()
    before, workers = one.main_pid, one.workers()
    one.systemctl("reload")
    one.container.until(
        lambda: one.workers() and not set(workers) & set(one.workers()) and one.get("/readyz"),
        "new workers",
    )
    assert one.show("MainPID", "ActiveState", "NRestarts") == (before, "active", "0")


def test_overrun_ends_within_the_stop_timeout(instance: Make) -> None:
    drain = 3
    one = instance(drain_timeout=drain).start()
    one.send("sleep 600")
    one.until_handling()
    began = time.monotonic()
    one.systemctl("stop")
    # The default has the same margin on top of its own drain timeout.
    assert time.monotonic() - began < drain + _MARGIN
    assert one.show("ActiveState", "Result", "ExecMainStatus", "NRestarts") == (
        *("failed", "exit-code", "2", "0"),
    )
    assert one.processes() == ""
    one.until_logged("drain deadline passed")  # as the documentation says to look for


def test_what_is_left_at_the_stop_timeout_is_killed(instance: Make) -> None:
    one = instance(drain_timeout=60)
    one.drop_in("[Service]\nTimeoutStopSec=2\n")
    one.start()
    one.send("sleep 600")
    one.until_handling()
    one.systemctl("stop")
    assert one.show("ActiveState", "Result", "NRestarts") == ("failed", "timeout", "0")
    assert one.processes() == ""


@pytest.mark.parametrize("name", ["USR2", "HUP"])
def test_signal_on_the_heels_of_the_start(instance: Make, name: str) -> None:
    one = instance()
    one.drop_in(_AT_ONCE)
    one.systemctl("start")
    one.signal(name)
    one.until_ready()
    assert one.show("ActiveState")[0] == "active"
    assert "Failed with result" not in one.journal()


def test_sandbox_is_shut(instance: Make) -> None:
    one = instance().start()
    for pid in (one.main_pid, *map(str, one.workers())):
        text = one.container.run("cat", f"/proc/{pid}/status")
        status = dict(line.split(":", 1) for line in text.splitlines())
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"].split() == ["1"]
        assert status["Seccomp"].split() == ["2"]
        assert "0" not in status["Uid"].split()
        mounts = one.container.run("cat", f"/proc/{pid}/mountinfo")
        roots = [line.split() for line in mounts.splitlines() if line.split()[4] == "/"]
        assert [fields[5].split(",")[0] for fields in roots] == ["ro"]
    # Tenths: 2.0 is far into what it calls OK.
    one.container.run("systemd-analyze", "security", "--threshold=20", "--no-pager", one.unit)


def test_host_name_is_the_instance_id(instance: Make, machine: Machine) -> None:
    one = instance().start()
    host = one.container.run("hostname").strip()
    members = Admin(machine.bootstrap).group_members(one.name)
    assert [member.instance_id for member in members] == [f"{host}-{one.name}-0"]
