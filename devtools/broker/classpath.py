"""Where Java, Maven and Kafka's jars are: resolved once by Maven, then read from a cache.

The cache lies in the repository's `.cache/penstock-broker/`, one directory per content of
`pom.xml`. The jars themselves stay in Maven's own repository.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from .errors import BrokerUnavailable

POM = Path(__file__).with_name("pom.xml")
CACHE_ROOT = Path(__file__).parents[2] / ".cache" / "penstock-broker"

MIN_JAVA = 17
"""Kafka 4 brokers need Java 17 (KIP-1013)."""

MAVEN_TIMEOUT = 900.0
"""Seconds: about 100 MB of jars and Maven plugins on a slow line."""


def have_broker() -> str | None:
    """Say why the real broker cannot run here, or None when nothing speaks against it.

    Looks only at the tools (no network), so that a test module can call it while being collected.
    A first start may still raise `BrokerUnavailable`: the jars may be out of reach.
    """
    try:
        find_java()
        if _cached_classpath(cache_directory()) is None:
            _find_maven()
    except BrokerUnavailable as why:
        return why.reason
    return None


@functools.cache
def find_java() -> Path:
    """Return the java launcher: `JAVA_HOME` first, then the PATH.

    Raises:
        BrokerUnavailable: none is found, it does not run, or it is older than `MIN_JAVA`.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    found = found or shutil.which("java")
    if found is None:
        raise BrokerUnavailable(f"java is not installed (Kafka needs Java {MIN_JAVA} or newer)")
    try:
        shown = subprocess.run(
            [found, "-version"], capture_output=True, text=True, timeout=30, check=True
        ).stderr
    except (OSError, subprocess.SubprocessError) as error:
        raise BrokerUnavailable(f"java does not run: {error}") from error
    version = re.search(r'version "(\d+)', shown)
    if version is None or int(version[1]) < MIN_JAVA:
        first_line = shown.strip().partition("\n")[0]
        raise BrokerUnavailable(f"Kafka needs Java {MIN_JAVA} or newer, found: {first_line}")
    return Path(found)


def kafka_version() -> str:
    """Return the Kafka version that `pom.xml` pins."""
    pinned = re.search(r"<kafka\.version>([^<]+)</kafka\.version>", POM.read_text("utf-8"))
    return pinned[1] if pinned else "unknown"


def cache_directory() -> Path:
    """Return the cache directory of the current `pom.xml`; it may not exist yet."""
    return CACHE_ROOT / hashlib.sha256(POM.read_bytes()).hexdigest()[:16]


@contextlib.contextmanager
def cache_lock() -> Iterator[Path]:
    """Hold the cache against other processes, and yield its directory.

    The lock goes with the process (flock), so a killed one leaves nothing to clean up.
    """
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield cache


def resolve_classpath(cache: Path) -> str:
    """Return the broker's classpath, asking Maven if the cache has none that still holds.

    Call it under `cache_lock`.

    Raises:
        BrokerUnavailable: Maven is missing, or failed; the end of its output is in the reason.
    """
    cached = _cached_classpath(cache)
    if cached is not None:
        return cached
    maven = _find_maven()
    progress(f"fetching Apache Kafka {kafka_version()} with Maven (once) …")
    fresh = cache / "classpath.new"
    command = [
        *(maven, "--batch-mode", "--quiet", "--file", str(POM)),
        "dependency:build-classpath",
        "-Dmdep.includeScope=runtime",
        f"-Dmdep.outputFile={fresh}",
    ]
    try:
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=MAVEN_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise BrokerUnavailable(
            f"Maven did not fetch Kafka within {MAVEN_TIMEOUT:.0f} s"
        ) from error
    except subprocess.CalledProcessError as error:
        tail = "\n".join(error.stdout.strip().splitlines()[-15:])
        raise BrokerUnavailable(
            f"Maven could not fetch Kafka (exit {error.returncode}):\n{tail}"
        ) from error
    fresh.replace(cache / "classpath")
    resolved = _cached_classpath(cache)
    if resolved is None:
        raise BrokerUnavailable("Maven reported success, but not every jar it named exists")
    return resolved


def progress(message: str) -> None:
    """Tell whoever waits, on stderr, what takes so long."""
    print(f"penstock broker: {message}", file=sys.stderr, flush=True)


def _find_maven() -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerUnavailable("Maven (mvn) is not installed, and Kafka was not fetched before")
    return maven


def _cached_classpath(cache: Path) -> str | None:
    try:
        classpath = (cache / "classpath").read_text("utf-8").strip()
    except FileNotFoundError:
        return None
    # Someone may have emptied Maven's repository since.
    jars = classpath.split(os.pathsep)
    return classpath if all(Path(jar).is_file() for jar in jars) else None
