"""The Dockerfile, built with buildah; the image, run by an OCI runtime against a real broker."""

from __future__ import annotations

import itertools
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import confluent_kafka
import pytest

import penstock
from devtools.broker import Broker
from devtools.image import Container, Image, Images, listing, scratch_copy, two_builds
from devtools.service import free_port, worker_pids
from devtools.stream import Stream
from penstock.settings import Settings, env_name

pytestmark = pytest.mark.timeout(600)  # the first build on a machine makes the base as well

ROOT = Path(__file__).resolve().parents[2]
UID = 10001
MakeContainer = Callable[..., Container]

#: What a running service has imported, all processes together.
MODULES = (
    "penstock.cli, penstock.client, penstock.supervisor.run, penstock.worker.__main__, "
    "penstock.http.server, penstock.kafka.kafka_python, penstock.log_records"
)


@pytest.fixture
def container(
    tool: Callable[[str], Path],
    built: Images,
    broker: Broker,
    topic: str,
    group: str,
    tmp_path: Path,
) -> Iterator[MakeContainer]:
    """Make containers; they are gone with the test, whatever happens."""
    crun = tool("crun")
    made: list[Container] = []

    def make(image: Image = built.service, **options: object) -> Container:
        env = {
            "PENSTOCK_BOOTSTRAP_SERVERS": broker.bootstrap,
            "PENSTOCK_TOPICS": topic,
            "PENSTOCK_GROUP_ID": group,
            "PENSTOCK_HTTP_PORT": str(free_port()),
        }
        directory = tmp_path / f"container-{len(made)}"
        one = Container(crun, image, directory, env=env, **options)  # type: ignore[arg-type] # passed on
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()


@pytest.fixture
def records(broker: Broker, topic: str) -> Iterator[Stream]:
    """Records, all the time."""
    stream = Stream(broker.bootstrap, topic, 12, rate=50).start()
    yield stream
    stream.stop()


# -- what the image is -------------------------------------------------------------------


def test_its_configuration_is_the_contract(built: Images) -> None:
    config = built.service.config

    assert config["Entrypoint"] == ["penstock"]
    assert config["Cmd"] == ["run", "penstock.log_records:app"]
    assert config["User"] == f"{UID}:{UID}"
    assert config["WorkingDir"] == "/app"
    assert set(config["ExposedPorts"]) == {"8080/tcp"}
    assert set(config["Volumes"]) == {"/var/lib/penstock", "/run/penstock"}
    assert config["StopSignal"] == "SIGTERM"  # or `docker kill -s USR2` ends its restart policy
    assert config["Healthcheck"]["Test"] == ["CMD", "penstock", "health"]
    env = dict(line.split("=", 1) for line in config["Env"])
    assert env.pop("PATH").startswith("/opt/penstock/bin:")
    assert env == {
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": "/handlers",
        "PENSTOCK_STATE_DIR": "/var/lib/penstock",
        "PENSTOCK_RUNTIME_DIR": "/run/penstock/control",
    }


def test_its_labels_say_what_it_is(built: Images) -> None:
    labels = built.service.config["Labels"]
    ours = {
        k.rpartition(".")[2]: v for k, v in labels.items() if k.startswith("org.opencontainers")
    }

    assert ours.pop("description")
    assert ours == {
        "title": "penstock",
        "licenses": "Apache-2.0",
        "version": penstock.__version__,
        "revision": "0123abc",
        "created": "2020-02-02T00:00:00Z",
    }


@pytest.mark.usefixtures("built")
def test_the_same_sources_give_the_same_files(tool: Callable[[str], Path]) -> None:
    first, second = two_builds(tool("buildah"))

    assert [path for path in first if first[path] != second.get(path)] == []
    assert set(second) == set(first)
    assert any(path.endswith(".pyc") for path in first)


def test_the_installed_files_have_one_time(built: Images) -> None:
    (epoch,) = re.findall(
        r"^ARG SOURCE_DATE_EPOCH=(\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    venv = built.service.root / "opt/penstock"

    assert {path.lstat().st_mtime for path in venv.rglob("*")} == {float(epoch)}


def test_the_service_cannot_change_its_own_code(built: Images) -> None:
    root = built.service.root
    places = [root / "app", root / "handlers", root / "opt/penstock"]
    files = [*places, *(path for place in places for path in place.rglob("*"))]

    assert {path.lstat().st_uid for path in files} == {0}
    writable = stat.S_IWGRP | stat.S_IWOTH
    assert [p for p in files if not p.is_symlink() and p.stat().st_mode & writable] == []


def test_it_holds_no_build_tools(built: Images) -> None:
    root = built.service.root
    tools = {"pip", "pip3", "hatchling", "cc", "gcc", "make"}
    found = [p for d in ("bin", "usr/bin", "usr/local/bin") for p in (root / d).iterdir()]
    packages = [p for d in ("opt", "usr/local") for p in (root / d).rglob("site-packages/*")]

    assert tools.isdisjoint(p.name for p in found)
    assert tools.isdisjoint(p.name.partition("-")[0] for p in packages)
    assert {"penstock", "kafka", "zstandard"} <= {p.name for p in packages}
    assert not {"src", "pip"} & {p.name for p in root.iterdir()}  # where it was built


def test_what_was_not_asked_for_is_not_in_the_context() -> None:
    allowed = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = re.findall(
        r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )

    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"
    assert sorted(allowed) == sorted(" ".join(copied).split())


def test_the_documentation_is_of_this_version() -> None:
    dockerfile, text = ((ROOT / name).read_text() for name in ("Dockerfile", "docs/container.md"))
    defaults = dict(re.findall(r'^ARG (\w+)="?([^"\n]+)', dockerfile, re.MULTILINE))

    assert defaults["VERSION"] == penstock.__version__
    assert set(re.findall(r"penstock:(\d[\w.]*)", text)) == {penstock.__version__}
    assert set(re.findall(r"PYTHON_IMAGE=(\S+)", text)) == {defaults["PYTHON_IMAGE"]}
    assert set(re.findall(r"SOURCE_DATE_EPOCH=(\d+)", text)) == {defaults["SOURCE_DATE_EPOCH"]}
    assert set(re.findall(r"PENSTOCK_[A-Z_]+[A-Z]", text)) <= {
        env_name(field) for field in Settings.model_fields
    }


# -- how it runs ---------------------------------------------------------------------------


def test_a_run_on_a_read_only_root(container: MakeContainer, records: Stream) -> None:
    with container() as service:
        service.until_ready()
        assert [service.get(p) for p in ("/startupz", "/livez", "/readyz")] == [200, 200, 200]
        service.until_logged('"event": "record"')

        facts = status(service.pid)
        assert facts["NSpid"].split()[-1] == "1"
        assert set(facts["Uid"].split()) == set(facts["Gid"].split()) == {str(UID)}
        assert {int(facts[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
        assert facts["NoNewPrivs"] == "1"
        programs = [Path(f"/proc/{p}/exe").readlink().name for p in family(service.pid)]
        assert len(programs) == 2  # supervisor, worker: no shell between or beside them
        assert all(name.startswith("python3") for name in programs)
        (root,) = re.findall(
            r"^\S+ / \S+ (\S+)", Path(f"/proc/{service.pid}/mounts").read_text(), re.MULTILINE
        )
        assert "ro" in root.split(",")
        for path in ("/app", "/handlers", "/opt/penstock", "/etc", "/var", "/run"):
            assert service.exec("touch", f"{path}/x").returncode != 0
        for path in ("/var/lib/penstock", "/run/penstock", "/tmp"):
            assert service.exec("touch", f"{path}/x").returncode == 0

        service.kill("TERM")
        assert service.wait() == 0
    assert "Traceback" not in service.log()


def test_the_healthcheck_says_what_livez_says(container: MakeContainer, built: Images) -> None:
    kind, *command = built.service.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    with container() as service:
        service.until_ready()

        healthy = service.exec(*command)
        elsewhere = service.exec(*command, "--url", f"http://127.0.0.1:{free_port()}")

        assert (healthy.returncode, healthy.stdout) == (0, "live: ok\n")
        assert elsewhere.returncode == 1


@pytest.mark.parametrize(("signal", "code"), [("TERM", 0), ("USR2", 4)])
def test_a_signal_decides_the_exit_status(
    container: MakeContainer, records: Stream, signal: str, code: int
) -> None:
    with container() as service:
        service.until_ready().until_logged('"event": "record"')

        service.kill(signal)

        assert service.wait() == code


def test_a_restart_asked_for_inside(container: MakeContainer) -> None:
    with container() as service:
        service.until_ready()

        asked = service.exec("penstock", "restart")

        assert asked.returncode == 0, asked.stderr
        assert service.wait() == 4


def test_a_killed_worker_ends_the_container(container: MakeContainer) -> None:
    (shown,) = re.findall(
        r"sh -c '(kill .*)'$", (ROOT / "docs/container.md").read_text(), re.MULTILINE
    )
    with container() as service:
        service.until_ready()

        assert service.exec("sh", "-c", shown).returncode == 0

        assert service.wait() == 137


def test_prestop_drains_and_term_ends_it_with_4(container: MakeContainer, records: Stream) -> None:
    with container() as service:
        service.until_ready()

        hook = service.exec("penstock", "prestop")
        assert (hook.returncode, hook.stdout) == (0, "drained\n"), hook.stderr
        assert (service.get("/livez"), service.get("/readyz")) == (200, 503)

        service.kill("TERM")
        assert service.wait() == 4


def test_it_writes_to_its_own_directories_only(
    container: MakeContainer, built: Images, records: Stream, tmp_path: Path
) -> None:
    # With the image's own directories, as without --read-only.
    with scratch_copy(built.service.root, tmp_path / "root") as root:
        before = listing(root)
        with container(root=root) as service:
            service.until_ready().until_logged('"event": "record"')
            token = root / "run/penstock/control"
            assert stat.S_IMODE(token.stat().st_mode) == 0o700
            service.kill("USR2")
            assert service.wait() == 4
        after = listing(root)

    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    changed -= {"dev", "proc"}  # the runtime's mounts
    journal = {path for path in changed if path.startswith("var/lib/penstock/")}
    assert journal
    assert {path for path in changed - journal if not path.startswith("run/penstock")} == set()


def test_nothing_is_compiled_at_run_time(container: MakeContainer) -> None:
    verbose = ["/opt/penstock/bin/python", "-v", "-c", f"import {MODULES}"]
    service = container(entrypoint=verbose[:1], command=verbose[1:]).start()

    assert service.wait() == 0, service.log()
    read = re.findall(r"^# code object from '?(\S+?)'?$", service.log(), re.MULTILINE)
    assert len(read) > 300
    assert [path for path in read if not path.endswith(".pyc")] == []


def test_it_reads_compressed_topics(container: MakeContainer, broker: Broker, topic: str) -> None:
    codecs = ["gzip", "snappy", "lz4", "zstd"]
    for codec in codecs:
        config = {"bootstrap.servers": broker.bootstrap, "compression.type": codec}
        producer = confluent_kafka.Producer(config | {"linger.ms": 1000, "log_level": 0})
        for _ in range(100):  # one alone would be sent as it is
            producer.produce(topic, f"packed with {codec} ".encode() * 5, partition=0)
        assert producer.flush(30) == 0
    with container() as service:
        for codec in codecs:
            service.until_logged(f'"value": "packed with {codec} ')


# -- handlers of the user's own --------------------------------------------------------------


@pytest.mark.parametrize("requirements", [False, True])
def test_an_image_of_ones_own_runs_ones_handlers(
    container: MakeContainer, built: Images, records: Stream, requirements: bool
) -> None:
    image = built.derived_with_requirements if requirements else built.derived
    with container(image) as service:
        service.until_ready().until_logged("billed b'")
        service.kill("USR2")
        assert service.wait() == 4
    assert f"six: {requirements}" in service.log()


def test_mounted_handlers_run(container: MakeContainer, records: Stream, tmp_path: Path) -> None:
    handlers = tmp_path / "handlers"
    handlers.mkdir()
    (handlers / "orders.py").write_text(
        "from penstock import App\n"
        "app = App()\n"
        "@app.subscribe()\n"
        "def bill(record):\n"
        "    print('mounted', record.value)\n"
    )
    with container(command=["run", "orders:app"], mounts={"/handlers": handlers}) as service:
        service.until_ready().until_logged("mounted b'")
        service.kill("TERM")
        assert service.wait() == 0


def test_a_handler_that_is_not_there_is_a_configuration_error(container: MakeContainer) -> None:
    service = container(command=["run", "orders:app"]).start()
    assert service.wait() == 78
    assert "no module named 'orders'" in service.log()


# -- helpers -----------------------------------------------------------------------------------


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def family(pid: int) -> list[int]:
    """A process and all that come from it."""
    return [pid, *itertools.chain.from_iterable(family(child) for child in worker_pids(pid))]
