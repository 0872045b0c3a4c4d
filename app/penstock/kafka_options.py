"""Every option of kafka-python's consumer, and what becomes of it here. Pure.

An option of ``PENSTOCK_KAFKA_OPTIONS`` (or ``App(kafka_options={…})``) is passed on to every
client that it concerns, or it is refused: because a setting of Penstock's decides it, because
the drain depends on it, or because nothing would look at it. None is taken and then ignored.
A test holds the tables against the options that the client has.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from penstock import arguments

#: Kafka's protocol has no larger ones for these.
_MOST: Final = 2**31 - 1

#: What is wrong with a value, as "a whole number", or nothing.
Check = Callable[[object], str | None]


def _number(least: int) -> Check:
    def check(value: object) -> str | None:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if whole and least <= value <= _MOST:  # type: ignore[operator] # a number, see above
            return None
        return f"a whole number from {least} to {_MOST}"

    return check


def _flag(value: object) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _text(value: object) -> str | None:
    return None if isinstance(value, str) and value.strip() else "text"


def _one_of(*values: str) -> Check:
    wanted = " or ".join(f'"{value}"' for value in values)
    return lambda value: None if value in values else wanted


def _version(value: object) -> str | None:
    numbers = isinstance(value, list | tuple) and 2 <= len(value) <= 3  # noqa: PLR2004 (2.3, 0.10.2)
    if numbers and all(_number(0)(part) is None for part in value):  # type: ignore[attr-defined]
        return None
    return "two or three whole numbers, as [3, 0]"


def _socket_options(value: object) -> str | None:
    if isinstance(value, list | tuple) and all(
        isinstance(one, list | tuple) and len(one) == 3 and all(isinstance(n, int) for n in one)  # noqa: PLR2004 (level, name, value)
        for one in value
    ):
        return None
    return "a list of [level, name, value], whole numbers"


def _ssl_context(value: object) -> str | None:
    import ssl  # noqa: PLC0415 (for the few who give one)

    return None if isinstance(value, ssl.SSLContext) else "an ssl.SSLContext, given in the code"


#: Options of connections: for the consumer, for dead letters, for leaving the group.
EVERY_CLIENT: Final[Mapping[str, Check]] = {
    "api_version": _version,
    "client_dns_lookup": _one_of("use_all_dns_ips", "resolve_canonical_bootstrap_servers_only"),
    "connections_max_idle_ms": _number(1),
    "max_in_flight_requests_per_connection": _number(1),
    "proxy_url": _text,
    "receive_message_max_bytes": _number(1),
    "reconnect_backoff_max_ms": _number(1),
    "reconnect_backoff_ms": _number(1),
    "request_timeout_ms": _number(1),
    "retry_backoff_ms": _number(1),
    "sasl_kerberos_domain_name": _text,
    "sasl_kerberos_name": _text,
    "sasl_kerberos_service_name": _text,
    "socket_options": _socket_options,
    "ssl_context": _ssl_context,
}

#: Options of fetching: only the consumer does.
CONSUMER: Final[Mapping[str, Check]] = {
    "check_crcs": _flag,
    "client_rack": _text,
    "enable_incremental_fetch_sessions": _flag,
    "fetch_max_bytes": _number(1),
    "fetch_max_wait_ms": _number(0),
    "fetch_min_bytes": _number(0),
    "isolation_level": _one_of("read_uncommitted", "read_committed"),
    "max_partition_fetch_bytes": _number(1),
}

#: They may ask for less than ``PENSTOCK_FETCH_BYTES``, which memory is computed from.
_WITHIN_FETCH_BYTES: Final = ("fetch_max_bytes", "max_partition_fetch_bytes")

_SETTINGS: Final[Mapping[str, str]] = {
    "auto_offset_reset": "PENSTOCK_AUTO_OFFSET_RESET",
    "bootstrap_servers": "PENSTOCK_BOOTSTRAP_SERVERS",
    "client_id": "PENSTOCK_CLIENT_ID",
    "group_id": "PENSTOCK_GROUP_ID",
    "group_instance_id": "PENSTOCK_INSTANCE_ID",
    "heartbeat_interval_ms": "PENSTOCK_HEARTBEAT_INTERVAL",
    "max_poll_interval_ms": "PENSTOCK_MAX_POLL_INTERVAL",
    "max_poll_records": "PENSTOCK_MAX_POLL_RECORDS",
    "metadata_max_age_ms": "PENSTOCK_METADATA_REFRESH",
    "sasl_mechanism": "PENSTOCK_SASL_MECHANISM",
    "sasl_plain_password": "PENSTOCK_SASL_PASSWORD",
    "sasl_plain_username": "PENSTOCK_SASL_USERNAME",
    "security_protocol": "PENSTOCK_SECURITY_PROTOCOL",
    "session_timeout_ms": "PENSTOCK_SESSION_TIMEOUT",
    "ssl_cafile": "PENSTOCK_SSL_CAFILE",
    "ssl_certfile": "PENSTOCK_SSL_CERTFILE",
    "ssl_check_hostname": "PENSTOCK_SSL_CHECK_HOSTNAME",
    "ssl_keyfile": "PENSTOCK_SSL_KEYFILE",
    "ssl_password": "PENSTOCK_SSL_PASSWORD",
}

_METRICS: Final = "the client's own metrics are not kept; Penstock's are at /metrics"
_IGNORED: Final = "kafka-python 3.0 does not look at it"

#: Options that are refused though no setting takes their place, and why.
REFUSED: Final[Mapping[str, str]] = {
    **{option: f"set {name} instead" for option, name in _SETTINGS.items()},
    "allow_auto_create_topics": "Penstock never has topics made: create them",
    "auto_commit_interval_ms": "nothing is committed before it is done: PENSTOCK_COMMIT_INTERVAL",
    "bootstrap_timeout_ms": "Penstock tries until a broker answers",
    "consumer_timeout_ms": "nothing would look at it",
    "default_offset_commit_callback": "Penstock commits, and looks at what became of it",
    "enable_auto_commit": "it would commit records that were not handled yet",
    "exclude_internal_topics": "a pattern never takes Kafka's internal topics: name them",
    "kafka_client": "Penstock brings its own",
    "key_deserializer": "one that raises stops the consumer: decode in the handler",
    "metric_group_prefix": _METRICS,
    "metric_reporters": _METRICS,
    "metrics_enabled": _METRICS,
    "metrics_num_samples": _METRICS,
    "metrics_sample_window_ms": _METRICS,
    "partition_assignment_strategy": "a rebalance would stop partitions that do not move",
    "receive_buffer_bytes": f"{_IGNORED}: use socket_options",
    "sasl_oauth_token_provider": "OAUTHBEARER is none of PENSTOCK_SASL_MECHANISM's",
    "selector": "Penstock leaves it to the client",
    "send_buffer_bytes": f"{_IGNORED}: use socket_options",
    "socks5_proxy": "it is called proxy_url now",
    "ssl_crlfile": "kafka-python 3.0 cannot load it: give an ssl_context with it in the code",
    "ssl_ciphers": f"{_IGNORED}: give an ssl_context with them in the code",
    "value_deserializer": "one that raises stops the consumer: annotate what the handler takes",
}

#: The client's defaults where one must be below another.
_ORDERED: Final = {
    "fetch_max_wait_ms": 500,
    "request_timeout_ms": 30_000,
    "connections_max_idle_ms": 540_000,
}

#: Values that may be secret: an address with a user in it.
_UNSHOWN: Final = frozenset({"proxy_url"})


def problems(options: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the options, each a sentence without the setting's name."""
    wrong = False
    for name, value in options.items():
        said = _problem(name, value)
        if said is not None:
            wrong = True
            yield said
    if wrong:
        return
    found = {name: options.get(name, default) for name, default in _ORDERED.items()}
    for (low, below), (high, above) in zip(
        list(found.items())[:-1], list(found.items())[1:], strict=True
    ):
        if below >= above:
            yield f"{low} ({below}) must be below {high} ({above})"


def _problem(name: str, value: object) -> str | None:
    check = EVERY_CLIENT.get(name) or CONSUMER.get(name)
    if check is None:
        why = REFUSED.get(name)
        if why is not None:
            return f"{name} cannot be set here: {why}"
        close = difflib.get_close_matches(name, [*EVERY_CLIENT, *CONSUMER], n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"{name} is no option of kafka-python's consumer{hint}"
    wanted = check(value)
    if wanted is None:
        return None
    return f"{name}{'' if name in _UNSHOWN else f'={arguments.shown(value)}'}: {wanted}"


def conflicts(
    options: Mapping[str, Any], *, protocol: str, kerberos: bool, tls: bool, fetch_bytes: int
) -> Iterator[str]:
    """Options that other settings make meaningless.

    ``tls``: certificates are named by ``PENSTOCK_SSL_*`` as well; ``kerberos``: the mechanism
    is GSSAPI; ``fetch_bytes``: ``PENSTOCK_FETCH_BYTES``.
    """
    for name in _WITHIN_FETCH_BYTES:
        if options.get(name, 0) > fetch_bytes:
            yield (
                f"PENSTOCK_KAFKA_OPTIONS has {name}={options[name]}, more than "
                f"PENSTOCK_FETCH_BYTES ({fetch_bytes}): raise that instead"
            )
    if "ssl_context" in options and not protocol.endswith("SSL"):
        yield (
            "PENSTOCK_KAFKA_OPTIONS has ssl_context, but PENSTOCK_SECURITY_PROTOCOL is "
            f"{protocol}: use SSL or SASL_SSL"
        )
    if "ssl_context" in options and tls:
        yield (
            "an ssl_context decides everything about TLS: give its certificates to it, not in "
            "PENSTOCK_SSL_*"
        )
    named = sorted(name for name in options if name.startswith("sasl_kerberos_"))
    if named and not kerberos:
        yield f"PENSTOCK_KAFKA_OPTIONS has {named[0]}, which PENSTOCK_SASL_MECHANISM=GSSAPI needs"


def shared(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those for every client, as the client wants them."""
    return {name: _value(value) for name, value in options.items() if name in EVERY_CLIENT}


def fetching(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those for the consumer alone, as the client wants them."""
    return {name: _value(value) for name, value in options.items() if name in CONSUMER}


def _value(value: Any) -> Any:
    """JSON has no tuples; ``api_version`` wants one."""
    return tuple(value) if isinstance(value, list) else value
