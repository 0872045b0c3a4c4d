"""From kafka-python's errors to ours: which are fatal, and what sentence helps a person."""

from __future__ import annotations

import re

from kafka import errors as k

from penstock.errors import (
    AuthenticationFailed,
    AuthorizationFailed,
    CommitRefused,
    Fenced,
    KafkaFailure,
    PenstockError,
    Unreadable,
)

#: A commit that meets these comes again once the group has settled.
_TRY_AGAIN = (
    k.RetriableError,
    k.CommitFailedError,
    k.RebalanceInProgressError,
    k.UnknownMemberIdError,
    k.IllegalGenerationError,
    k.UnknownTopicOrPartitionError,  # a topic was deleted under us; the rebalance follows
)


def principal_of(username: str | None) -> str:
    """The name a broker's ACLs know this client by."""
    return f"User:{username}" if username else "User:ANONYMOUS"


def translate(error: BaseException, *, principal: str, group: str) -> PenstockError:
    """The error of ours that stands for a kafka-python error.

    ``CommitRefused`` for everything that passes by itself, a ``KafkaFailure`` otherwise.
    """
    match error:
        case PenstockError():
            return error
        case k.TopicAuthorizationFailedError():
            topics = ", ".join(sorted(map(str, _resources(error)))) or "?"
            return AuthorizationFailed(
                f"principal {principal} may not read topic {topics}: "
                f"grant it READ and DESCRIBE on Topic:{topics}"
            )
        case k.GroupAuthorizationFailedError():
            return AuthorizationFailed(
                f"principal {principal} may not use consumer group {group}: "
                f"grant it READ on Group:{group}"
            )
        case k.AuthorizationError():
            return AuthorizationFailed(f"principal {principal} is not authorized: {error}")
        case k.SaslAuthenticationFailedError() | k.UnsupportedSaslMechanismError():
            return AuthenticationFailed(
                f"the broker refused the credentials of {principal}: {error}; check "
                "PENSTOCK_SASL_USERNAME, PENSTOCK_SASL_PASSWORD and PENSTOCK_SASL_MECHANISM"
            )
        case k.IllegalSaslStateError():
            return AuthenticationFailed(
                "the broker takes no SASL there: PENSTOCK_BOOTSTRAP_SERVERS names a listener "
                "without it, or PENSTOCK_SECURITY_PROTOCOL is not that listener's"
            )
        case k.FencedInstanceIdError():
            return Fenced(
                "another member joined with this group.instance.id: two services must not "
                "share PENSTOCK_INSTANCE_ID"
            )
        case k.CorruptRecordError():
            return Unreadable(f"a record batch is corrupt and cannot be read: {_named(error)}")
        case k.UnsupportedCodecError() | NotImplementedError():
            return Unreadable(_codec(str(error)))
        case k.OffsetMetadataTooLargeError():
            return KafkaFailure(
                "the broker refuses the texts that go with commits: its "
                "offset.metadata.max.bytes must be at least 4096, which is Kafka's default"
            )
        case _ if isinstance(error, _TRY_AGAIN):
            return CommitRefused(f"{type(error).__name__}: {error}")
        case k.KafkaError():
            return KafkaFailure(f"{type(error).__name__}: {error}")
        case _:
            return KafkaFailure(f"the Kafka client failed: {type(error).__name__}: {error}")


def _codec(said: str) -> str:
    found = re.search("gzip|snappy|lz4|zstd", said, re.IGNORECASE)
    if found is None:
        return f"{said}: this version's Kafka client does not know that codec"
    return (
        f"records are compressed with {found[0].lower()}, whose library is not installed: "
        "pip install 'penstock[codecs]'"
    )


def _named(error: BaseException) -> str:
    """The error's text, with partitions named as everywhere else: ``orders[1]``."""
    return re.sub(r"TopicPartition\(topic='([^']*)', partition=(\d+)\)", r"\1[\2]", str(error))


def _resources(error: BaseException) -> list[str]:
    """Topic names inside an authorization error (kafka-python passes a set or a name)."""
    found: list[str] = []
    for argument in error.args:
        found.extend(
            argument if isinstance(argument, set | frozenset | list | tuple) else [argument]
        )
    return [str(item) for item in found]
