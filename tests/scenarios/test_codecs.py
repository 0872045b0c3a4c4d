"""Compressed topics: read where the codec is installed, refused by name where it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.broker import Broker
from devtools.service import Service
from devtools.tasks import Task
from tests.scenarios.course import Course, until_done
from tests.scenarios.support import assert_failed

CODECS = ("gzip", "snappy", "lz4", "zstd")  # as Kafka numbers them, from 1
VALUE = b"compress me " * 20


def tasks() -> list[Task]:
    return [Task(n % 2, b"key-%d" % n, VALUE) for n in range(40)]


def codec_on_disk(broker: Broker, topic: str) -> int:
    """What the broker keeps of the first batch (bits 0 to 2 of its attributes)."""
    (segment,) = (broker.log_path.parent / "data" / f"{topic}-0").glob("*.log")
    return segment.read_bytes()[22] & 7


def test_compressed_topics(
    make_course: Callable[..., Course],
    serve: Callable[..., Service],
    broker: Broker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    courses = {codec: make_course(codec, partitions=2) for codec in CODECS}
    for number, (codec, course) in enumerate(courses.items()):
        course.send(tasks(), **{"compression.type": codec, "linger.ms": 50})
        if isinstance(broker, Broker):  # else somebody else's disk
            assert codec_on_disk(broker, course.topic) == number + 1
    # As on a machine where only the plain `penstock` is installed.
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "zstandard.py").write_text("raise ImportError('not installed')")
    zstd = courses["zstd"]
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(hidden))
        without = serve(zstd).start()
    assert_failed(without, 1, "zstd", "penstock[codecs]", f"{zstd.topic}[")
    assert not zstd.done()
    assert all(offset == 0 for offset, _ in zstd.committed().values())  # where it begins

    service = serve(*courses.values()).start()
    until_done(service.until, *courses.values())
    assert service.stop() == 0
    for codec, course in courses.items():
        verdict = course.judge()
        assert verdict.perfect, f"{codec}: {verdict}"
