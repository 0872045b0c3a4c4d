"""Who is compared, with which settings; an environment of its own for each."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import penstock
from bench.environment import CACHE, make

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
_CACHE = CACHE / "peers"

BASE = "kafka-python"
"""The peer that ratios refer to: the loop that Penstock itself is made of."""


@dataclass(frozen=True)
class Peer:
    """One row of the tables. ``directory`` holds its app and what that needs."""

    name: str
    directory: str
    shown: tuple[str, ...]
    """Distributions whose versions matter to a reader."""
    settings: str
    arguments: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether it runs in this project's own environment."""
        return self.directory == "penstock"

    @property
    def requirements(self) -> Path:
        """The pins of its environment."""
        return HERE / self.directory / "requirements.txt"

    @property
    def python(self) -> str:
        """Its interpreter."""
        return sys.executable if self.ours else str(_CACHE / self.directory / "bin" / "python")

    @property
    def command(self) -> list[str]:
        """What starts it."""
        if self.ours:
            return [self.python, "-m", "penstock", "run", "bench.peers.penstock.app:app"]
        return [self.python, str(HERE / self.directory / "app.py"), *self.arguments]

    def versions(self) -> str:
        """As pinned; what is pinned is what was installed."""
        if self.ours:
            return f"penstock {penstock.__version__}"
        pins = dict(re.findall(r"^([\w.-]+)==(\S+)", self.requirements.read_text(), re.MULTILINE))
        return ", ".join(f"{name} {pins[name]}" for name in self.shown)


_BARE = "manual commit after the handler, at most once a second; TERM finishes the batch (500)"
_ONCE = "`AckPolicy.NACK_ON_ERROR`: commit after each"
_DEFAULT = "defaults: `AckPolicy.ACK_FIRST` (at most once), two log lines a message"


def _faststream(client: str, distribution: str) -> tuple[Peer, ...]:
    def variant(name: str, settings: str) -> Peer:
        return Peer(
            f"faststream-{client}{name and f'-{name}'}",
            f"faststream_{client}",
            ("faststream", distribution),
            settings,
            env={"PEER_VARIANT": name},
        )

    return (
        variant("", f"{_ONCE} message, not logged"),
        variant("batch", f"{_ONCE} batch (500), not logged; handler for lists"),
        variant("default", _DEFAULT),
    )


PEERS = (
    Peer("penstock", "penstock", (), "defaults; handler for `Record`, `def`"),
    *_faststream("aiokafka", "aiokafka"),
    *_faststream("confluent", "confluent-kafka"),
    Peer(
        "quixstreams",
        "quixstreams",
        ("quixstreams", "confluent-kafka"),
        "defaults: at least once, a checkpoint each 5 s; `StreamingDataFrame.update`",
    ),
    Peer(
        "faust",
        "faust",
        ("faust-streaming", "aiokafka"),
        "defaults: acknowledged after the event, commit each 2.8 s, `stream_wait_empty`; an agent",
        ("worker", "--loglevel", "warn", "--without-web"),
    ),
    Peer("aiokafka", "aiokafka", ("aiokafka",), f"bare loop, `getmany`; {_BARE}"),
    Peer("confluent-kafka", "confluent_kafka", ("confluent-kafka",), f"bare loop; {_BARE}"),
    Peer(BASE, "kafka_python", ("kafka-python",), f"bare loop; {_BARE}"),
)


def install(peers: tuple[Peer, ...]) -> dict[str, str]:
    """Make the environments that are missing; an error's text by directory."""
    missing = {p.directory: p.requirements for p in peers if not p.ours}
    with ThreadPoolExecutor(3) as pool:
        places = [_CACHE / directory for directory in missing]
        told = zip(missing, pool.map(make, places, missing.values()), strict=True)
        return {directory: error for directory, error in told if error}
