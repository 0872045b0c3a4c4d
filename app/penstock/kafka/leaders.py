"""Questions to the leaders of partitions: where does an epoch end, and where does a log begin?

Requests of our own, one try each; whoever asks does so again, with what has become known of the
leaders meanwhile. Everything here runs on the client's I/O thread.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any, Final

import structlog
from kafka import TopicPartition
from kafka import errors as k
from kafka.protocol.consumer import OffsetForLeaderEpochRequest

from penstock.map_seal import End

log = structlog.get_logger("penstock.kafka")

_Topic = OffsetForLeaderEpochRequest.OffsetForLeaderTopic
_Partition = _Topic.OffsetForLeaderPartition

_NOBODY: Final = -1


async def epoch_ends(manager: Any, asked: Mapping[Any, int], seconds: float) -> dict[Any, End]:
    """Where the epochs that are ``asked`` for end (KIP-320); without those nobody told now.

    Raises:
        KafkaError: the cluster will not tell, however often it is asked.
    """
    ends: dict[Any, End] = {}
    requests = {}
    for node, partitions in _by_leader(manager, asked).items():
        topics = defaultdict(list)
        for tp in partitions:
            each = _Partition(
                partition=tp.partition, current_leader_epoch=-1, leader_epoch=asked[tp]
            )
            topics[tp.topic].append(each)
        request = OffsetForLeaderEpochRequest(replica_id=_NOBODY, topics=list(topics.items()))
        requests[node] = manager.send(request, node)
    for response in await _answers(manager, requests, seconds):
        for topic in response.topics:
            for found in topic.partitions:
                error = k.for_code(found.error_code)
                if error is k.NoError:
                    epoch = -1 if found.leader_epoch is None else found.leader_epoch
                    tp = TopicPartition(topic.topic, found.partition)
                    ends[tp] = End(epoch, found.end_offset)
                elif issubclass(error, k.RetriableError):
                    manager.cluster.request_update()
                else:
                    raise error
    return ends


async def log_ends(
    fetcher: Any, partitions: Collection[Any], spec: int, seconds: float
) -> dict[Any, int]:
    """The first or the next offset of logs (``OffsetSpec``); without those nobody told now.

    Raises:
        KafkaError: the cluster will not tell, however often it is asked.
    """
    manager = fetcher._manager  # noqa: SLF001 (PRIVATE)
    by_leader = fetcher._group_list_offset_requests(dict.fromkeys(partitions, spec))  # noqa: SLF001 (PRIVATE)
    requests = {
        node: manager.call_soon(fetcher._send_list_offsets_request, node, asked)  # noqa: SLF001 (PRIVATE)
        for node, asked in by_leader.items()
    }
    found: dict[Any, int] = {}
    for offsets, _ in await _answers(manager, requests, seconds):
        found.update({tp: each.offset for tp, each in offsets.items()})
    return found


async def _answers(manager: Any, requests: Mapping[int, Any], seconds: float) -> list[Any]:
    """What came within ``seconds``."""
    until = time.monotonic() + seconds
    answers = []
    for node, request in requests.items():
        try:
            left = max(0.05, until - time.monotonic())
            answers.append(await manager.wait_for(request, left * 1000))
        except k.RetriableError as error:
            log.info("a leader could not tell now", node=node, error=str(error))
            manager.cluster.request_update()
    return answers


def _by_leader(manager: Any, partitions: Collection[Any]) -> dict[int, list[Any]]:
    by_leader = defaultdict(list)
    for tp in partitions:
        leader = manager.cluster.leader_for_partition(tp)
        if leader is None or leader == _NOBODY:
            manager.cluster.request_update()
        else:
            by_leader[leader].append(tp)
    return by_leader
