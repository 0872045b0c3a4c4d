"""What a dead member would have had to commit: the deaths that its own has added.

A group takes commits of a member until its session ends, on any connection that knows its id and
generation, and both are on its board. So the counts reach the group though the member is gone,
and whoever is given its partitions begins with them, in another pod, too. Only the text beside
the committed offset changes; the offset stays.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from kafka import TopicPartition
from kafka import errors as k
from kafka.protocol.consumer import OffsetCommitRequest

from penstock import deaths, offset_map
from penstock.deaths import Toll
from penstock.kafka.config import consumer_options
from penstock.kafka.net import open_consumer
from penstock.kafka.note import Came, believe
from penstock.offsets import Position
from penstock.settings import Settings

#: Private attributes this module reaches into, as dotted paths from the consumer.
PRIVATE: Final = ("_coordinator.coordinator", "_manager.send", "_manager.wait_for", "_net.run")


class Dead(NamedTuple):
    """A member that is gone, as the group still knows it."""

    group: str
    instance: str | None
    member: str
    generation: int


def leave_word(settings: Settings, dead: Dead, tolls: Sequence[Toll], seconds: float) -> list[str]:
    """Commit the tolls for a member that is dead; returns the ids of those that were taken.

    Raises:
        NotOpened, KafkaError, Exception: it could not be done; nothing is lost by that, they are
            committed by the next worker that knows of them.
    """
    until = time.monotonic() + seconds
    options = consumer_options(settings, dead.group, dead.instance) | {
        "bootstrap_timeout_ms": max(1, round(seconds * 1000))
    }
    consumer, _ = open_consumer(options)
    try:
        at, taken = _merged(consumer, tolls, until)
        if at:
            request = _request(dead, at)
            consumer._net.run(_send, consumer, request, _left(until))  # noqa: SLF001 (PRIVATE)
        return taken
    finally:
        with contextlib.suppress(k.KafkaError):
            consumer.close(autocommit=False, timeout_ms=500)


def _merged(consumer: Any, tolls: Sequence[Toll], until: float) -> tuple[dict[Any, Any], list[str]]:
    """What to commit for each partition, and the tolls that are in it."""
    committed = {}
    for partition in {toll.partition for toll in tolls}:
        consumer.partitions_for_topic(partition.topic)  # its id and its leaders
        tp = TopicPartition(*partition)
        found = consumer.committed(tp, metadata=True, timeout_ms=_left(until) * 1000)
        if found is not None:
            committed[tp] = found
    manager = consumer._manager  # noqa: SLF001 (PRIVATE)
    came: dict[Any, Came] = consumer._net.run(believe, manager, committed, _left(until))  # noqa: SLF001 (PRIVATE)
    at, taken = {}, []
    for tp, each in came.items():
        if each.elsewhere:
            continue
        theirs = [t for t in tolls if TopicPartition(*t.partition) == tp]
        offset, text = each.position
        said = offset_map.decode(offset, text)
        total = deaths.summed(said.deaths, *(t.deaths for t in theirs))
        told = offset_map.encode(offset, said.finished, total)
        at[tp] = each.log.committable(Position(offset, told))
        taken += [t.id for t in theirs]
    return at, taken


def _request(dead: Dead, at: dict[Any, Any]) -> Any:
    topic_of = OffsetCommitRequest.OffsetCommitRequestTopic
    partition_of = topic_of.OffsetCommitRequestPartition
    return OffsetCommitRequest(
        max_version=8,
        group_id=dead.group,
        generation_id_or_member_epoch=dead.generation,
        member_id=dead.member,
        group_instance_id=dead.instance,
        topics=[
            topic_of(
                name=tp.topic,
                partitions=[
                    partition_of(
                        partition_index=tp.partition,
                        committed_offset=each.offset,
                        committed_leader_epoch=each.leader_epoch,
                        committed_metadata=each.metadata,
                    )
                ],
            )
            for tp, each in at.items()
        ],
    )


async def _send(consumer: Any, request: Any, seconds: float) -> None:
    """Runs on the client's I/O thread. Raises KafkaError: not taken."""
    manager = consumer._manager  # noqa: SLF001 (PRIVATE)
    node = consumer._coordinator.coordinator()  # noqa: SLF001 (PRIVATE; found by committed())
    if node is None:
        raise k.CoordinatorNotAvailableError
    answer = await manager.wait_for(manager.send(request, node_id=node), seconds * 1000)
    for topic in answer.topics:
        for partition in topic.partitions:
            error = k.for_code(partition.error_code)
            if error is not k.NoError:
                raise error


def _left(until: float) -> float:
    return max(0.1, until - time.monotonic())
