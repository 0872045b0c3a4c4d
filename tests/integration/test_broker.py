"""The development broker does what the other integration tests take for granted."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer
from confluent_kafka import KafkaError as ConfluentError
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from devtools.broker import (
    Admin,
    Broker,
    BrokerError,
    BrokerStartFailed,
    BrokerTimeout,
    BrokerUnavailable,
    CutProxy,
    MockBroker,
    classpath,
    have_broker,
)

REPOSITORY = Path(__file__).parents[2]
WHY_NOT = have_broker()

# kafka-python leaves the socket of a refused connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)

needs_kafka = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(sasl_users={"alice": "secret", "root": "toor"}, super_users=["root"]) as running:
        yield running


@pytest.fixture(scope="module")
def admin(broker: Broker) -> Admin:
    return Admin(broker.bootstrap)


def produce(bootstrap: str, topic: str, values: list[bytes], **config: Any) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, **config)
    try:
        for sent in [producer.send(topic, value) for value in values]:
            sent.get(timeout=20)
    finally:
        producer.close(timeout=5)


def consume(
    bootstrap: str, topic: str, count: int, *, group: str, poll_ms: int = 500, **config: Any
) -> list[bytes]:
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        **config,
    )
    values: list[bytes] = []
    deadline = time.monotonic() + 30
    try:
        while len(values) < count and time.monotonic() < deadline:
            for records in consumer.poll(poll_ms).values():
                values += [record.value for record in records]
        consumer.commit()
    finally:
        consumer.close()
    return values


def eventually(condition: Callable[[], bool], timeout: float = 10) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"  # ended; its new parent has not asked how


# --- life -----------------------------------------------------------------------------------


@pytest.mark.kafka
@needs_kafka
def test_data_group_and_ports_survive_stop_kill_and_restart() -> None:
    values = [b"%d" % number for number in range(50)]
    with Broker() as broker:
        address, admin = broker.bootstrap, Admin(broker.bootstrap)
        admin.create_topic("orders", 3)
        produce(address, "orders", values)
        assert sorted(consume(address, "orders", 50, group="before")) == sorted(values)

        broker.stop()
        assert not broker.alive
        broker.start()
        assert sum(admin.committed_offsets("before", "orders").values()) == 50

        produce(address, "orders", [b"last words"])
        broker.kill()
        assert not broker.alive
        started = time.monotonic()
        broker.restart()
        # Not the 12 s for which the crashed node would still count as alive.
        assert time.monotonic() - started < 9

        assert broker.bootstrap == address
        assert sum(admin.end_offsets("orders").values()) == 51
        assert len(consume(address, "orders", 51, group="after")) == 51
        broker.restart()
        assert sum(admin.committed_offsets("after", "orders").values()) == 51
        directory = broker.log_path.parent
    assert not directory.exists()


@pytest.mark.kafka
@needs_kafka
def test_paused_broker_answers_nothing_until_resumed(broker: Broker) -> None:
    impatient = Admin(broker.bootstrap, timeout=1)
    assert impatient.partitions("none") == 0
    broker.pause()
    try:
        with pytest.raises(BrokerTimeout, match="within 1 s"):
            impatient.partitions("none")
    finally:
        broker.resume()
    assert eventually(lambda: Admin(broker.bootstrap).partitions("none") == 0)


@pytest.mark.kafka
@needs_kafka
def test_failed_start_shows_the_log_and_leaves_nothing() -> None:
    broker = Broker(properties={"num.io.threads": "none"})
    with pytest.raises(BrokerStartFailed, match=r"num\.io\.threads"):
        broker.start()
    assert not broker.alive
    broker.close()
    assert broker.log_tail() == ""
    with pytest.raises(BrokerError, match="not running"):
        broker.pause()


@pytest.mark.kafka
@needs_kafka
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_jvm_does_not_outlive_its_parent(number: signal.Signals) -> None:
    # The broker is started from a thread that ends at once: its death must not count.
    program = textwrap.dedent("""
        import sys, threading
        from devtools.broker import Broker
        broker = Broker()
        starter = threading.Thread(target=broker.start)
        starter.start(); starter.join()
        print(broker.pid, broker.log_path.parent, flush=True)
        sys.stdin.read()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        told, directory = parent.stdout.readline().split()
        pid = int(told)
        time.sleep(0.5)
        assert not gone(pid)
        parent.send_signal(number)
        assert parent.wait(10) == -number
    assert eventually(lambda: gone(pid))
    assert eventually(lambda: not Path(directory).exists())


@pytest.mark.kafka
@needs_kafka
def test_broker_in_the_foreground_ends_cleanly() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-m", "devtools.broker", "--port", str(port), "--proxy"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as foreground:
        assert foreground.stdout is not None
        assert f"127.0.0.1:{port}" in foreground.stdout.readline()
        exports = [foreground.stdout.readline() for _ in range(6)]
        assert exports[0].strip() == f"export PENSTOCK_BOOTSTRAP_SERVERS=127.0.0.1:{port}"
        assert Admin(f"127.0.0.1:{port}").partitions("orders") == 3
        foreground.send_signal(signal.SIGUSR1)
        assert foreground.stdout.readline() == "network cut\n"
        foreground.send_signal(signal.SIGINT)
        assert foreground.wait(30) == 0


# --- admin ----------------------------------------------------------------------------------


@pytest.mark.kafka
@needs_kafka
def test_admin_creates_grows_and_deletes_topics(admin: Admin) -> None:
    admin.create_topic("life", 2, config={"retention.ms": "60000"})
    assert admin.end_offsets("life") == {0: 0, 1: 0}
    with pytest.raises(BrokerError, match="TOPIC_ALREADY_EXISTS"):
        admin.create_topic("life")
    admin.add_partitions("life", 5)
    assert admin.partitions("life") == 5
    admin.delete_topic("life")
    assert admin.partitions("life") == 0
    with pytest.raises(BrokerError, match="no topic life"):
        admin.end_offsets("life")
    admin.create_topic("life", 1)  # the name is free again
    assert admin.partitions("life") == 1


@pytest.mark.kafka
@needs_kafka
def test_admin_sees_members_and_commits(broker: Broker, admin: Admin) -> None:
    admin.create_topic("seen", 2)
    produce(broker.bootstrap, "seen", [b"x"])
    assert admin.group("watchers").state == "DEAD"
    assert admin.committed_offsets("watchers", "seen") == {}
    consumer = KafkaConsumer(
        "seen",
        bootstrap_servers=broker.bootstrap,
        group_id="watchers",
        group_instance_id="seat-0",
        client_id="watcher",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    try:
        assert eventually(lambda: bool(consumer.poll(500)))
        consumer.commit()
        (member,) = admin.group_members("watchers")
        assert admin.group("watchers").state == "STABLE"
        assert (member.instance_id, member.client_id) == ("seat-0", "watcher")
        assert member.partitions == {("seen", 0), ("seen", 1)}
        assert sum(admin.committed_offsets("watchers", "seen").values()) == 1
    finally:
        consumer.close()


# --- network --------------------------------------------------------------------------------


@pytest.mark.kafka
@needs_kafka
@pytest.mark.parametrize("mode", ["drop", "reset"])
def test_cut_longer_than_the_session_costs_the_seat_and_heals(
    broker: Broker, admin: Admin, mode: Any
) -> None:
    topic, group = f"cut-{mode}", f"cut-group-{mode}"
    admin.create_topic(topic)
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=broker.proxied_bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=1000,
        heartbeat_interval_ms=200,
        request_timeout_ms=2000,
    )
    try:
        produce(broker.proxied_bootstrap, topic, [b"before"])
        assert eventually(lambda: bool(consumer.poll(500)))
        broker.proxy.cut(mode)
        assert broker.proxy.is_cut
        produce(broker.bootstrap, topic, [b"meanwhile"])
        assert eventually(lambda: admin.group_members(group) == ()), "session did not expire"
        assert consumer.poll(500) == {}
        broker.proxy.heal()
        assert eventually(lambda: bool(consumer.poll(500)), 20)
        # It rejoins from inside poll().
        assert eventually(
            lambda: consumer.poll(500) is not None and len(admin.group_members(group)) == 1, 20
        )
    finally:
        broker.proxy.heal()
        consumer.close()


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A TCP server that sends back what it gets."""

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join(5)


def connect(proxy: CutProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def test_proxy_passes_much_data_and_the_end_of_it(echo: tuple[str, int]) -> None:
    blob = os.urandom(3_000_000)
    with CutProxy(echo) as proxy, connect(proxy) as client:

        def send() -> None:
            client.sendall(blob)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        received = bytearray()
        while data := client.recv(65536):
            received += data
        sender.join()
        assert received == blob


def test_dropped_connection_goes_on_where_it_was(echo: tuple[str, int]) -> None:
    with CutProxy(echo) as proxy, connect(proxy) as client:
        client.sendall(b"one")
        assert client.recv(10) == b"one"
        proxy.cut("drop")
        client.sendall(b"two")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(10)
        with connect(proxy) as newcomer:
            newcomer.settimeout(0.3)
            newcomer.sendall(b"hello")
            with pytest.raises(TimeoutError):
                newcomer.recv(10)
            proxy.heal()
            client.settimeout(5)
            newcomer.settimeout(5)
            assert client.recv(10) == b"two"
            assert newcomer.recv(10) == b"hello"


def test_reset_refuses_until_healed(echo: tuple[str, int]) -> None:
    with CutProxy(echo) as proxy:
        with connect(proxy) as client:
            client.sendall(b"one")
            assert client.recv(10) == b"one"
            proxy.cut("reset")
            with pytest.raises(ConnectionResetError):
                client.recv(10)
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        proxy.cut("drop")  # changing one's mind while cut
        proxy.heal()
        with connect(proxy) as client:
            client.sendall(b"back")
            assert client.recv(10) == b"back"


def test_proxy_without_target_resets_and_close_joins_the_thread() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        target = nobody.getsockname()
    proxy = CutProxy(target)
    with pytest.raises(ConnectionResetError), connect(proxy) as client:
        client.recv(10)
    proxy.close()
    proxy.close()
    assert f"cut-proxy-{proxy.port}" not in [each.name for each in threading.enumerate()]
    with pytest.raises(RuntimeError, match="closed"):
        proxy.cut()


# --- security -------------------------------------------------------------------------------


def sasl(user: str, password: str) -> dict[str, Any]:
    return {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": user,
        "sasl_plain_password": password,
    }


@pytest.mark.kafka
@needs_kafka
def test_wrong_password_is_refused(broker: Broker) -> None:
    with pytest.raises(KafkaError):
        KafkaConsumer(
            bootstrap_servers=broker.sasl_bootstrap,
            bootstrap_timeout_ms=3000,
            **sasl("alice", "wrong"),
        )


@pytest.mark.kafka
@needs_kafka
def test_acls_are_granted_and_revoked_at_runtime(broker: Broker, admin: Admin) -> None:
    admin.create_topic("guarded")
    alice = sasl("alice", "secret")
    produce(broker.sasl_bootstrap, "guarded", [b"x"], **sasl("root", "toor"))
    with pytest.raises(TopicAuthorizationFailedError):
        produce(broker.sasl_bootstrap, "guarded", [b"x"], **alice)

    admin.grant("alice", "read", "topic", "guarded")
    with pytest.raises(GroupAuthorizationFailedError):
        consume(broker.sasl_bootstrap, "guarded", 1, group="alices-1", **alice)
    admin.grant("alice", "read", "group", "alices-", prefix=True)
    assert consume(broker.sasl_bootstrap, "guarded", 1, group="alices-1", **alice) == [b"x"]

    admin.revoke("alice", "read", "topic", "guarded")
    # Not kafka-python: denied before it holds a partition, it logs that and polls {} for ever.
    consumer = Consumer(
        {
            "bootstrap.servers": broker.sasl_bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "alice",
            "sasl.password": "secret",
            "group.id": "alices-2",
            "log_level": 0,
        }
    )
    try:
        consumer.subscribe(["guarded"])
        answer = consumer.poll(20)
        assert answer is not None
        error = answer.error()
        assert error is not None
        assert error.code() == ConfluentError.TOPIC_AUTHORIZATION_FAILED
    finally:
        consumer.close()
    with pytest.raises(BrokerError, match="not granted"):
        admin.revoke("alice", "read", "topic", "guarded")


def test_sasl_needs_users_and_usable_names() -> None:
    with pytest.raises(BrokerError, match="sasl_users"):
        _ = Broker().sasl_bootstrap


# --- machines that cannot -------------------------------------------------------------------


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    classpath.find_java.cache_clear()
    try:
        assert have_broker() == "java is not installed (Kafka needs Java 17 or newer)"
        java = tmp_path / "java"
        java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
        java.chmod(0o755)
        assert "found: openjdk version" in str(have_broker())
        java.write_text("#!/bin/sh\necho 'openjdk version \"21\"' >&2\n")
        classpath.find_java.cache_clear()
        monkeypatch.setattr(classpath, "CACHE_ROOT", tmp_path / "cache")
        assert "Maven (mvn) is not installed" in str(have_broker())
    finally:
        classpath.find_java.cache_clear()


def test_failing_maven_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\necho '[ERROR] no route to host'\nexit 1\n")
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(classpath, "CACHE_ROOT", tmp_path / "cache")
    with (
        classpath.cache_lock() as cache,
        pytest.raises(BrokerUnavailable, match="no route to host"),
    ):
        classpath.resolve_classpath(cache)


def test_mock_serves_one_member() -> None:
    with MockBroker() as mock:
        produce(mock.bootstrap, "mocked", [b"x"], api_version=(2, 3))
        values = consume(mock.bootstrap, "mocked", 1, group="g", poll_ms=6000, api_version=(2, 3))
        assert values == [b"x"]
    with pytest.raises(BrokerError, match="not running"):
        _ = mock.bootstrap
