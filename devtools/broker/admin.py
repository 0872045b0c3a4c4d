"""What a test asks of a cluster besides records: topics, offsets, group members, ACLs.

Every helper waits for the *effect*, within a deadline: Kafka answers when its controller has
decided, and the broker a client talks to learns of it a little later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
    TopicMetadata,
)

from .errors import BrokerError, BrokerTimeout
from .ready import QUIET_CLIENT

TIMEOUT = 20.0
"""Seconds until a helper gives up, unless told otherwise."""

AclResource = Literal["topic", "group", "transactional_id", "broker"]
AclOperationName = Literal[
    "all", "read", "write", "create", "delete", "alter", "describe", "idempotent_write"
]

_Result = TypeVar("_Result")
_POLL_INTERVAL = 0.02

_LEADER_MOVES = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)
"""Answers of a broker that has not caught up with the metadata; they pass."""

_COORDINATOR_MOVES = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)
"""The same for groups; a new broker makes the log of the groups when the first is asked for."""


@dataclass(frozen=True)
class Member:
    """One member of a consumer group, as the coordinator knows it."""

    member_id: str
    client_id: str
    instance_id: str | None
    """Its group.instance.id; None for a dynamic member."""
    partitions: frozenset[tuple[str, int]]
    """Topic and number of every partition assigned to it."""


@dataclass(frozen=True)
class Group:
    """A consumer group; one that does not exist is DEAD and has no members."""

    state: str
    """Kafka's name: STABLE, EMPTY, DEAD, PREPARING_REBALANCING, COMPLETING_REBALANCING, …"""
    members: tuple[Member, ...]


class Admin:
    """Asks the cluster at `bootstrap`.

    Args:
        bootstrap: host:port.
        timeout: seconds each helper may take.
        config: more librdkafka settings, for example for SASL.
    """

    def __init__(
        self, bootstrap: str, *, timeout: float = TIMEOUT, config: Mapping[str, Any] | None = None
    ) -> None:
        self._timeout = timeout
        self._config = {"bootstrap.servers": bootstrap, **QUIET_CLIENT, **dict(config or {})}
        self._client = AdminClient(self._config)

    # Topics.

    def create_topic(
        self, name: str, partitions: int = 1, *, config: Mapping[str, str] | None = None
    ) -> None:
        """Create a topic, and return when each of its partitions has a leader.

        Raises:
            BrokerError: it exists, or the settings are refused.
            BrokerTimeout: it did not come up in time.
        """
        topic = NewTopic(name, partitions, 1, config=dict(config or {}))
        created = self._client.create_topics([topic], request_timeout=self._timeout)
        self._result(created[name], f"create topic {name}")
        self._await_leaders(name, partitions)

    def add_partitions(self, name: str, total: int) -> None:
        """Enlarge a topic to `total` partitions, and return when each has a leader.

        Raises:
            BrokerError: there is no such topic, or it has as many partitions already.
            BrokerTimeout: they did not come up in time.
        """
        grown = self._client.create_partitions(
            [NewPartitions(name, total)], request_timeout=self._timeout
        )
        self._result(grown[name], f"add partitions to {name}")
        self._await_leaders(name, total)

    def delete_topic(self, name: str) -> None:
        """Delete a topic, and return when it is gone.

        Raises:
            BrokerError: there is no such topic.
            BrokerTimeout: it was still there at the deadline.
        """
        deleted = self._client.delete_topics([name], request_timeout=self._timeout)
        self._result(deleted[name], f"delete topic {name}")
        self._until(lambda: self._topic(name) is None, f"topic {name} to be gone")

    def partitions(self, name: str) -> int:
        """Return how many partitions a topic has; 0 if there is no such topic.

        Raises:
            BrokerTimeout: no broker answered in time.
        """
        topic = self._topic(name)
        return len(topic.partitions) if topic else 0

    # Offsets and groups.

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Return the offset of the next record of each partition (the high watermark).

        Raises:
            BrokerError: there is no such topic.
            BrokerTimeout: no answer in time.
        """
        count = self.partitions(topic)
        if not count:
            raise BrokerError(f"there is no topic {topic}")
        found: dict[int, int] = {}

        def answered() -> bool:
            found.update(self._end_offsets(topic, count) or {})
            return bool(found)

        self._until(answered, f"the leaders of {topic} to tell their end offsets")
        return found

    def committed_offsets(self, group: str, topic: str) -> dict[int, int]:
        """Return the group's committed offset per partition; without those that have none.

        Raises:
            BrokerTimeout: no answer in time.
        """
        asked = [TopicPartition(topic, number) for number in range(self.partitions(topic))]
        if not asked:
            return {}
        # Not AdminClient.list_consumer_group_offsets: when the coordinator has moved (a broker
        # that was restarted), librdkafka 2.16 takes the answer for a consumer's and reads the
        # group of a client that has none: a segmentation fault in rd_kafka_cgrp_op. A consumer
        # that never subscribes asks the same and has one.
        consumer = Consumer({**self._config, "group.id": group})
        told: list[TopicPartition] = []

        def answered() -> bool:
            try:
                told.extend(consumer.committed(asked, timeout=self._timeout))
            except KafkaException as error:
                if error.args[0].code() in _COORDINATOR_MOVES:
                    return False
                raise self._as_ours(error, f"read the committed offsets of {group}") from error
            return True

        try:
            self._until(answered, f"the coordinator of {group}")
        finally:
            consumer.close()
        return {at.partition: at.offset for at in told if at.offset >= 0}

    def group(self, group: str) -> Group:
        """Return a group's state and members, as of now.

        Raises:
            BrokerTimeout: no answer in time.
        """
        told: list[Group] = []

        def described() -> bool:
            told.extend(self._describe(group))
            return bool(told)

        self._until(described, f"the coordinator of {group}")
        return told[0]

    def _describe(self, group: str) -> list[Group]:
        """The group, or nothing when it is worth asking again."""
        answers = self._client.describe_consumer_groups([group], request_timeout=self._timeout)
        try:
            found = self._result(answers[group], f"describe group {group}")
        except BrokerError as error:
            # Brokers say so since Kafka 4 (KIP-1043), and "dead" before.
            if _code(error) == KafkaError.GROUP_ID_NOT_FOUND:
                return [Group(ConsumerGroupState.DEAD.name, ())]
            if _code(error) in _COORDINATOR_MOVES:
                return []
            raise
        members = tuple(
            Member(
                each.member_id,
                each.client_id,
                each.group_instance_id or None,
                frozenset(
                    (at.topic, at.partition)
                    for at in (each.assignment.topic_partitions if each.assignment else ())
                ),
            )
            for each in found.members
        )
        return [Group(found.state.name, members)]

    def group_members(self, group: str) -> tuple[Member, ...]:
        """Return a group's members, as of now.

        Raises:
            BrokerTimeout: no answer in time.
        """
        return self.group(group).members

    # ACLs.

    def grant(
        self,
        user: str,
        operation: AclOperationName,
        resource: AclResource,
        name: str,
        *,
        prefix: bool = False,
    ) -> None:
        """Allow a user something, and return when the broker acts upon it.

        Args:
            user: the user's name, without "User:".
            operation: what.
            resource: on what kind of thing.
            name: its name, "*" for all, or the beginning of its name.
            prefix: whether `name` is a beginning.

        Raises:
            BrokerError: the broker has no authorizer.
            BrokerTimeout: it was not in force in time.
        """
        binding = AclBinding(*_acl(user, operation, resource, name, prefix))
        created = self._client.create_acls([binding], request_timeout=self._timeout)
        self._result(created[binding], f"grant {user} {operation} on {resource} {name}")
        rule = AclBindingFilter(*_acl(user, operation, resource, name, prefix))
        self._until(lambda: bool(self._acls(rule)), f"ACL of {user} to be in force")

    def revoke(
        self,
        user: str,
        operation: AclOperationName,
        resource: AclResource,
        name: str,
        *,
        prefix: bool = False,
    ) -> None:
        """Take back what `grant` gave, and return when the broker acts upon it.

        Raises:
            BrokerError: it was not granted, or the broker has no authorizer.
            BrokerTimeout: it was still in force at the deadline.
        """
        rule = AclBindingFilter(*_acl(user, operation, resource, name, prefix))
        what = f"revoke {user} {operation} on {resource} {name}"
        deleted = self._client.delete_acls([rule], request_timeout=self._timeout)
        if not self._result(deleted[rule], what):
            raise BrokerError(f"could not {what}: it was not granted")
        self._until(lambda: not self._acls(rule), f"ACL of {user} to be gone")

    # Helpers.

    def _acls(self, rule: AclBindingFilter) -> list[AclBinding]:
        found: list[AclBinding] = self._result(
            self._client.describe_acls(rule, request_timeout=self._timeout), "describe ACLs"
        )
        return found

    def _topic(self, name: str) -> TopicMetadata | None:
        # All topics, not one: librdkafka would *ask for* the one, and then keep it in its cache.
        try:
            return self._client.list_topics(timeout=self._timeout).topics.get(name)
        except KafkaException as error:
            raise self._as_ours(error, f"look up topic {name}") from error

    def _await_leaders(self, name: str, count: int) -> None:
        def led() -> bool:
            topic = self._topic(name)
            return (
                topic is not None
                and len(topic.partitions) == count
                and all(each.leader >= 0 for each in topic.partitions.values())
                # The metadata may name a leader before that broker has learned that it is one.
                and self._end_offsets(name, count) is not None
            )

        self._until(led, f"{count} partition(s) of {name} to have leaders")

    def _end_offsets(self, topic: str, count: int) -> dict[int, int] | None:
        """Return the end offset of each partition; None if it is worth asking again."""
        latest = OffsetSpec.latest()
        answers = self._client.list_offsets(
            {TopicPartition(topic, number): latest for number in range(count)},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=self._timeout,
        )
        offsets: dict[int, int] = {}
        for at, answer in answers.items():
            try:
                end = self._result(answer, f"get the end offset of {topic}[{at.partition}]")
            except BrokerError as error:
                if _code(error) in _LEADER_MOVES:
                    return None
                raise
            offsets[at.partition] = end.offset
        return offsets

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self._timeout
        while not condition():
            if time.monotonic() > deadline:
                raise BrokerTimeout(f"waited {self._timeout:g} s for {what}")
            time.sleep(_POLL_INTERVAL)

    def _result(self, future: Future[_Result], what: str) -> _Result:
        try:
            # librdkafka keeps the deadline; the margin is for a future that it forgot.
            return future.result(self._timeout + 5)
        except KafkaException as error:
            raise self._as_ours(error, what) from error
        except TimeoutError as error:
            raise BrokerTimeout(f"could not {what} within {self._timeout:g} s") from error

    def _as_ours(self, error: KafkaException, what: str) -> BrokerError:
        cause = error.args[0]
        if cause.code() in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT):  # noqa: SLF001
            return BrokerTimeout(f"could not {what} within {self._timeout:g} s: {cause.str()}")
        return BrokerError(f"could not {what}: {cause.name()}: {cause.str()}")


def _code(error: BrokerError) -> int | None:
    cause = error.__cause__
    return cause.args[0].code() if isinstance(cause, KafkaException) else None


def _acl(
    user: str, operation: AclOperationName, resource: AclResource, name: str, prefix: bool
) -> tuple[ResourceType, str, ResourcePatternType, str, str, AclOperation, AclPermissionType]:
    return (
        ResourceType[resource.upper()],
        name,
        ResourcePatternType.PREFIXED if prefix else ResourcePatternType.LITERAL,
        f"User:{user}",
        "*",
        AclOperation[operation.upper()],
        AclPermissionType.ALLOW,
    )
