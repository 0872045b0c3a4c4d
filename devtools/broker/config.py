"""The broker's server.properties: a single KRaft node that is quick to start and fit for tests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .ports import HOST

NODE_ID = 1

DEFAULTS: Mapping[str, str] = {
    # Tests must create what they use; a mistyped topic is an error, not a new topic.
    "auto.create.topics.enable": "false",
    "delete.topic.enable": "true",
    "message.max.bytes": str(16 * 1024 * 1024),
    # Records with old timestamps must not vanish from under a test.
    "log.retention.ms": "-1",
    # Groups: no artificial wait at the first join, and sessions short enough to expire in a test.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    # One node, so one replica; few partitions, because each costs files and start time.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "2",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "2",
    "auto.leader.rebalance.enable": "false",
    # Small: the default compaction buffer alone (128 MB) is a third of the heap.
    "log.cleaner.dedupe.buffer.size": str(4 * 1024 * 1024),
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "group.coordinator.threads": "1",
    "share.coordinator.threads": "1",
}

AFTER_CRASH: Mapping[str, str] = {
    # A node that did not sign off counts as alive until its session ends, and until then its own
    # next incarnation may not register: with the default (9 s) a restart after a kill takes 12 s.
    # Not so short in general: a node that is frozen for longer (pause(), a busy machine) is fenced.
    "broker.session.timeout.ms": "1000",
    "broker.heartbeat.interval.ms": "200",
}
"""More settings for the start that follows a kill."""


@dataclass(frozen=True)
class Ports:
    """The TCP ports of one broker, the same for its whole life."""

    controller: int
    plain: int
    proxied: int
    """Where the broker listens for connections that come through the proxy."""
    proxy: int
    """Where the proxy listens: what the broker advertises for its proxied listener."""
    sasl: int


def server_properties(
    directory: Path,
    ports: Ports,
    *,
    sasl_users: Mapping[str, str] | None = None,
    super_users: Iterable[str] = (),
    after_crash: bool = False,
    overrides: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the broker's settings; `overrides` win over everything.

    Args:
        directory: where the broker keeps its data.
        ports: its ports.
        sasl_users: passwords by user name; not None adds the SASL listener and the authorizer.
        super_users: names of users whom the authorizer lets do anything.
        after_crash: the previous run did not end in good order.
        overrides: more settings, or other values.

    Raises:
        ValueError: a user name that a JAAS line cannot carry.
    """
    listeners = {
        "CONTROLLER": ports.controller,
        "PLAIN": ports.plain,
        "PROXIED": ports.proxied,
    }
    protocols = dict.fromkeys(listeners, "PLAINTEXT")
    if sasl_users is not None:
        listeners["SASL"] = ports.sasl
        protocols["SASL"] = "SASL_PLAINTEXT"
    advertised = {
        name: ports.proxy if name == "PROXIED" else port
        for name, port in listeners.items()
        if name != "CONTROLLER"
    }
    settings = {
        "process.roles": "broker,controller",
        "node.id": str(NODE_ID),
        "controller.quorum.voters": f"{NODE_ID}@{HOST}:{ports.controller}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAIN",
        "listeners": _addresses(listeners),
        "advertised.listeners": _addresses(advertised),
        "listener.security.protocol.map": ",".join(f"{k}:{v}" for k, v in protocols.items()),
        "log.dirs": str(directory),
        **DEFAULTS,
    }
    if sasl_users is not None:
        settings |= _security(sasl_users, super_users)
    if after_crash:
        settings |= AFTER_CRASH
    return settings | dict(overrides or {})


def to_text(settings: Mapping[str, str]) -> str:
    """Return the settings in Java's properties format."""
    # The one character that a value here can hold and that the format gives a meaning of its own.
    return "".join(
        f"{key}={value}\n".replace("\\", "\\\\") for key, value in sorted(settings.items())
    )


def _addresses(listeners: Mapping[str, int]) -> str:
    return ",".join(f"{name}://{HOST}:{port}" for name, port in listeners.items())


def _security(users: Mapping[str, str], super_users: Iterable[str]) -> dict[str, str]:
    # ANONYMOUS is everyone on a listener without authentication: the broker itself, its controller
    # and the admin helpers, which must be able to grant what a test then tries.
    principals = ["User:ANONYMOUS", *(f"User:{name}" for name in super_users)]
    return {
        "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl.plain.sasl.jaas.config": _jaas(users),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": ";".join(principals),
    }


def _jaas(users: Mapping[str, str]) -> str:
    for name, password in users.items():
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            raise ValueError(f"not usable as a SASL/PLAIN user name in a JAAS line: {name!r}")
        if not re.fullmatch(r"[ -~]+", password) or set(password) & set('"\\'):
            raise ValueError(f'the password of {name!r} must be printable ASCII without " and \\')
    entries = " ".join(f'user_{name}="{password}"' for name, password in users.items())
    return f"org.apache.kafka.common.security.plain.PlainLoginModule required {entries};"
