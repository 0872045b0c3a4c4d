"""Every example runs as its first lines say, on a real broker, and restarts with 4."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Producer

from devtools.broker import Admin, Broker
from devtools.service import Service

pytestmark = pytest.mark.kafka

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

DELIVERY = b'{"article": "bolt", "pieces": 4, "at": "2026-03-01T08:00:00Z"}'
STOLEN = b'{"number": 1, "card": "stolen", "cents": 5}'

#: By example: what is read, by which group; and topics for its dead letters, and how many.
READS: dict[str, tuple[dict[tuple[str, str], list[bytes]], dict[str, int]]] = {
    "orders": ({("orders", "billing"): [b"0 1", b"0 2"]}, {}),
    "typed": ({("deliveries", "stock"): [DELIVERY, b"{}"]}, {"deliveries.dead": 1}),
    "batches": ({("clicks", "warehouse"): [b"/a", b"/b"]}, {}),
    "coroutines": ({("messages", "pusher"): [b"hello", b"you"]}, {"messages.dead": 0}),
    "failures": ({("payments", "cashier"): [STOLEN, b"?"]}, {"payments.dead": 2}),
    "several": ({("incoming", "accounts"): [b"5"], ("audit.eu", "archive"): [b"one"]}, {}),
}


def test_all_are_here() -> None:
    assert set(READS) == {p.stem for p in EXAMPLES.glob("*.py") if "test_" not in p.stem}


@pytest.mark.timeout(300)
def test_every_example_runs(
    own_broker: Broker, make_service: Callable[..., Service], tmp_path: Path
) -> None:
    admin = Admin(own_broker.bootstrap)
    admin.create_topic("outgoing")
    producer = Producer({"bootstrap.servers": own_broker.bootstrap})
    env = {"DATABASE": str(tmp_path / "clicks.db"), "ARCHIVE": str(tmp_path / "archive")}
    for name, (reads, dead) in READS.items():
        for topic, values in [*((t, v) for (t, _), v in reads.items()), *((t, []) for t in dead)]:
            admin.create_topic(topic)
            for value in values:
                producer.produce(topic, value, key=b"k")
        assert producer.flush(30) == 0
        service = make_service(
            f"{EXAMPLES / name}.py:app", env=env, bootstrap_servers=own_broker.bootstrap
        ).start()
        service.until_ready()
        wanted = {at: {0: len(values)} for at, values in reads.items()}
        service.until(partial(_committed, admin, wanted), f"{name} to be done with {wanted}")
        for topic, number in dead.items():
            assert admin.end_offsets(topic) == {0: number}, name
        service.send(signal.SIGUSR2)
        assert service.wait() == 4, service.log_tail()


def _committed(admin: Admin, wanted: dict[tuple[str, str], dict[int, int]]) -> bool:
    return all(admin.committed_offsets(group, topic) == at for (topic, group), at in wanted.items())
