"""An archive of Kafka's loaded classes, which halves the broker's start (JEP 350, Java 13).

Most of the start of a broker is the JVM loading, verifying and linking some ten thousand classes.
The archive is made once, by a training run that does what tests do; the JVM checks by itself
whether it fits the classpath and the Java version, and goes without if not.
"""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from .classpath import progress
from .config import Ports, server_properties, to_text
from .jvm import FLAGS, Jvm
from .ports import HOST, free_ports
from .ready import QUIET_CLIENT, ClientConfig, wait_until_ready
from .storage import format_directory

_TIMEOUT = 60.0


def make_archive(cache: Path, java: Path, classpath: str, checkpoint: Path) -> Path | None:
    """Return the cached archive, made by a training run when there is none; None if it failed.

    Call it under `cache_lock`. A failure is remembered (as an empty file), not repeated, and costs
    nothing but a slower start.
    """
    archive = cache / f"classes-{_fingerprint(java)}.jsa"
    if not archive.exists():
        progress("preparing a fast start (once, some ten seconds) …")
        fresh = archive.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        if not _train(fresh, java, classpath, checkpoint):
            progress("that failed; the broker starts more slowly without it")
            fresh.write_bytes(b"")
        fresh.replace(archive)
    return archive if archive.stat().st_size else None


def _fingerprint(java: Path) -> str:
    # An updated Java has another launcher; asking it for its version would cost 50 ms each time.
    launcher = java.resolve()
    stat = launcher.stat()
    seen = f"{launcher} {stat.st_size} {stat.st_mtime_ns} {FLAGS}"
    return hashlib.sha256(seen.encode()).hexdigest()[:16]


def _train(archive: Path, java: Path, classpath: str, checkpoint: Path) -> bool:
    with tempfile.TemporaryDirectory(prefix="penstock-broker-") as name:
        data = Path(name) / "data"
        properties = Path(name) / "server.properties"
        ports = Ports(*free_ports(5))
        users = {"trainee": "trainee"}
        settings = server_properties(data, ports, sasl_users=users, super_users=users)
        properties.write_text(to_text(settings), "utf-8")
        format_directory(data, checkpoint)
        flags = (f"-XX:ArchiveClassesAtExit={archive}",)
        try:
            jvm = Jvm(java, classpath, flags, ("kafka.Kafka", str(properties)), Path(name))
        except OSError:
            return False
        try:
            wait_until_ready(ports.plain, _TIMEOUT, lambda: None)
            _exercise(ports)
        except (KafkaException, RuntimeError):
            pass  # what was loaded up to here is worth keeping
        return jvm.terminate(_TIMEOUT) and archive.exists()


def _exercise(ports: Ports) -> None:
    """Do with the broker what tests do, so that the classes for it are in the archive."""
    topic = f"training-{uuid.uuid4().hex}"
    plain: ClientConfig = {"bootstrap.servers": f"{HOST}:{ports.plain}", **QUIET_CLIENT}
    sasl: ClientConfig = {
        "bootstrap.servers": f"{HOST}:{ports.sasl}",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "trainee",
        "sasl.password": "trainee",
        **QUIET_CLIENT,
    }
    admin = AdminClient(plain)
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(_TIMEOUT)
    producer = Producer(sasl)
    producer.produce(topic, b"value")
    producer.flush(_TIMEOUT)
    consumer = Consumer({**sasl, "group.id": topic, "auto.offset.reset": "earliest"})
    try:
        consumer.subscribe([topic])
        if consumer.poll(_TIMEOUT) is not None:
            consumer.commit(asynchronous=False)
    finally:
        consumer.close()
    admin.delete_topics([topic])[topic].result(_TIMEOUT)
