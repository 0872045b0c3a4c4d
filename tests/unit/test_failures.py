from __future__ import annotations

import pytest
from kafka import TopicPartition
from kafka import errors as k

from penstock import errors as ours
from penstock.kafka.failures import principal_of, translate

EVERY = sorted(
    {e for e in vars(k).values() if isinstance(e, type) and issubclass(e, k.KafkaError)},
    key=lambda e: e.__name__,
)

#: Fatal although a class above them says "retriable", or of a kind of their own.
OWN_KIND: dict[type[BaseException], type[ours.KafkaFailure]] = {
    k.TopicAuthorizationFailedError: ours.AuthorizationFailed,
    k.GroupAuthorizationFailedError: ours.AuthorizationFailed,
    k.ClusterAuthorizationFailedError: ours.AuthorizationFailed,
    k.TransactionalIdAuthorizationFailedError: ours.AuthorizationFailed,
    k.DelegationTokenAuthorizationFailedError: ours.AuthorizationFailed,
    k.AuthorizationError: ours.AuthorizationFailed,
    k.SaslAuthenticationFailedError: ours.AuthenticationFailed,
    k.IllegalSaslStateError: ours.AuthenticationFailed,
    k.UnsupportedSaslMechanismError: ours.AuthenticationFailed,
    k.FencedInstanceIdError: ours.Fenced,
    k.CorruptRecordError: ours.Unreadable,
    k.UnsupportedCodecError: ours.Unreadable,
}

#: What a rebalance, a moving coordinator or a slow broker brings.
PASSES = {
    k.CommitFailedError,
    k.RebalanceInProgressError,
    k.UnknownMemberIdError,
    k.IllegalGenerationError,
    k.UnknownTopicOrPartitionError,
    k.CoordinatorNotAvailableError,
    k.CoordinatorLoadInProgressError,
    k.NotCoordinatorError,
    k.KafkaConnectionError,
    k.KafkaTimeoutError,
    k.NodeNotReadyError,
    k.RequestTimedOutError,
    k.NotLeaderForPartitionError,
    k.LeaderNotAvailableError,
    k.UnstableOffsetCommitError,
}

#: Fatal, and told by its remedy instead of its name.
REMEDIES: dict[type[BaseException], str] = {
    k.OffsetMetadataTooLargeError: "offset.metadata.max.bytes must be at least 4096",
}


def made(error: type[BaseException]) -> BaseException:
    try:
        return error("because")
    except TypeError:
        return error()


def put(error: BaseException) -> ours.PenstockError:
    return translate(error, principal="User:me", group="billing")


@pytest.mark.parametrize("error", EVERY, ids=lambda e: e.__name__)
def test_every_error_of_the_client_has_one_of_ours(error: type[BaseException]) -> None:
    result = put(made(error))
    if error in OWN_KIND:
        assert type(result) is OWN_KIND[error]
    elif error in PASSES or issubclass(error, k.RetriableError):
        assert type(result) is ours.CommitRefused
        assert error.__name__ in str(result)
    else:
        assert type(result) is ours.KafkaFailure
        assert REMEDIES.get(error, error.__name__) in str(result)


def test_what_the_table_says_passes_is_part_of_the_client() -> None:
    assert set(EVERY) >= PASSES
    assert len(EVERY) > 100


@pytest.mark.parametrize("topics", [{"orders", "refunds"}, ["refunds", "orders"]])
def test_a_topic_that_may_not_be_read_is_named(topics: object) -> None:
    text = str(put(k.TopicAuthorizationFailedError(topics)))
    assert text == (
        "principal User:me may not read topic orders, refunds: "
        "grant it READ and DESCRIBE on Topic:orders, refunds"
    )
    assert "Topic:orders" in str(put(k.TopicAuthorizationFailedError("orders")))
    assert "topic ?" in str(put(k.TopicAuthorizationFailedError()))


def test_the_remedies() -> None:
    assert "READ on Group:billing" in str(put(k.GroupAuthorizationFailedError()))
    assert "PENSTOCK_SASL_PASSWORD" in str(put(k.SaslAuthenticationFailedError("no")))
    assert "PENSTOCK_SECURITY_PROTOCOL" in str(put(k.IllegalSaslStateError()))
    assert "PENSTOCK_INSTANCE_ID" in str(put(k.FencedInstanceIdError()))
    assert "penstock[codecs]" in str(put(NotImplementedError("zstd")))
    where = k.CorruptRecordError(f"at {TopicPartition('orders', 1)}")
    assert "orders[1]" in str(put(where))


def test_ours_stay_as_they_are() -> None:
    for error in (ours.Fenced("x"), ours.CommitRefused("y")):
        assert put(error) is error


@pytest.mark.parametrize("error", [ValueError("x"), AssertionError(), OSError(5, "io")])
def test_what_is_not_the_client_s_own_is_a_failure(error: BaseException) -> None:
    result = put(error)
    assert type(result) is ours.KafkaFailure
    assert type(error).__name__ in str(result)


def test_the_principal() -> None:
    assert principal_of("me") == "User:me"
    assert principal_of(None) == "User:ANONYMOUS"
