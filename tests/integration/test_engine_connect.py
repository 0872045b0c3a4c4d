"""A consumer that cannot be made says why, and leaves nothing behind."""

from __future__ import annotations

import gc
import logging
import threading
from pathlib import Path

import pytest

from devtools.service import free_port
from penstock.kafka.kafka_python import KafkaPythonEngine
from penstock.settings import load
from tests.integration.member import Notebook


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def attempt(port: int) -> None:
    settings = load({"bootstrap_servers": f"127.0.0.1:{port}"})
    with pytest.raises(TimeoutError, match="ECONNREFUSED"):
        KafkaPythonEngine(settings, ("orders",), "billing", None, Notebook(), 0.3)


def test_tries_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "kafka")  # or pytest keeps the connections it logs about
    port = free_port()
    attempt(port)  # what is made once for all: loggers, caches
    gc.collect()
    threads, files = threading.active_count(), open_files()
    for _ in range(5):
        attempt(port)
    gc.collect()  # kafka-python leaves refused sockets to it
    assert threading.active_count() == threads
    assert open_files() <= files + 3, "more than what the last try still holds"
