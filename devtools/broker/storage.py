"""The broker's data directory, formatted without a JVM of its own.

`kafka-storage format` takes a second and a half of JVM time, and writes two small files: the
identity of the directory (`meta.properties`) and a snapshot with the levels of the cluster's
features (`bootstrap.checkpoint`), which depends on nothing but Kafka's version. So Kafka's own tool
makes the snapshot once, for the cache, and each broker gets a copy and an identity.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

from .classpath import progress
from .config import NODE_ID, Ports, server_properties, to_text
from .errors import BrokerUnavailable

_CHECKPOINT = "bootstrap.checkpoint"


def make_checkpoint(cache: Path, java: Path, classpath: str) -> Path:
    """Return the cached feature snapshot; have Kafka's storage tool make it when there is none.

    Call it under `cache_lock`.

    Raises:
        BrokerUnavailable: the tool failed; the end of its output is in the reason.
    """
    checkpoint = cache / _CHECKPOINT
    if checkpoint.exists():
        return checkpoint
    progress("preparing the storage format (once) …")
    with tempfile.TemporaryDirectory(prefix="penstock-broker-") as name:
        directory = Path(name)
        properties = directory / "server.properties"
        # Formatting opens no port: any will do.
        ports = Ports(controller=1, plain=2, proxied=3, proxy=4, sasl=5)
        properties.write_text(to_text(server_properties(directory, ports)), "utf-8")
        command = [
            *(str(java), "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", classpath),
            *("kafka.tools.StorageTool", "format"),
            *("--cluster-id", _random_id(), "--config", str(properties)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        made = directory / _CHECKPOINT
        if done.returncode != 0 or not made.exists():
            tail = (done.stdout + done.stderr)[-2000:]
            raise BrokerUnavailable(f"Kafka's storage tool failed ({done.returncode}):\n{tail}")
        fresh = cache / f"{_CHECKPOINT}.new"
        shutil.copyfile(made, fresh)
        fresh.replace(checkpoint)
    return checkpoint


def format_directory(directory: Path, checkpoint: Path) -> None:
    """Make `directory` the data directory of a new cluster of one."""
    directory.mkdir(parents=True)
    shutil.copyfile(checkpoint, directory / _CHECKPOINT)
    (directory / "meta.properties").write_text(
        f"version=1\nnode.id={NODE_ID}\ncluster.id={_random_id()}\ndirectory.id={_random_id()}\n",
        "utf-8",
    )


def _random_id() -> str:
    """Return a new id in Kafka's own form: a UUID in URL-safe base64, never starting with a dash.

    (A leading dash would look like an option to the storage tool; Kafka avoids it as well.)
    """
    while True:
        made = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not made.startswith("-"):
            return made
