"""What the cluster says of a topic, asked without making it.

A request of our own. The client's are for topics that it follows from then on, and one of
those that is missing is asked for ten times a second, for ever (trap 18).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from kafka import errors as k
from kafka.protocol.metadata import MetadataRequest

_WRITE: Final = 4  # AclOperation
_UNTOLD: Final = 31  # the one bit that is set when a broker does not tell


class Found(NamedTuple):
    """A topic, as a broker knows it."""

    #: Leader by partition; -1 while there is none.
    leaders: Mapping[int, int]
    #: Why there are no partitions: missing, not authorized, not a name.
    error: type[k.KafkaError] | None
    #: Whether this principal may produce to it, as far as the broker tells.
    writable: bool

    @property
    def missing(self) -> bool:
        """The cluster does not have it."""
        return self.error in (k.UnknownTopicOrPartitionError, k.InvalidTopicError)

    @property
    def passing(self) -> bool:
        """Ask again: the topic is there, or may be, and will be told of in a moment."""
        return (
            self.error is not None and issubclass(self.error, k.RetriableError) and not self.missing
        )


async def look_up(manager: Any, names: Collection[str], seconds: float) -> dict[str, Found]:
    """Ask a broker. Runs on the client's loop.

    Raises:
        KafkaError: no answer within ``seconds``.
    """
    node = manager.least_loaded_node()
    if node is None:
        raise k.NodeNotReadyError("no broker can be reached just now")
    request = MetadataRequest(
        topics=[MetadataRequest.MetadataRequestTopic(name=name) for name in sorted(names)],
        allow_auto_topic_creation=False,
        include_cluster_authorized_operations=False,
        include_topic_authorized_operations=True,
    )
    response = await manager.wait_for(manager.send(request, node), seconds * 1000)
    manager.cluster.update_metadata(response)  # brokers that came or moved
    return {each.name: _found(each) for each in response.topics}


def _found(topic: Any) -> Found:
    error = k.for_code(topic.error_code)
    may = topic.authorized_operations
    return Found(
        {each.partition_index: each.leader_id for each in topic.partitions},
        None if error is k.NoError else error,
        not isinstance(may, set) or not may or bool(may & {_WRITE, _UNTOLD}),
    )
