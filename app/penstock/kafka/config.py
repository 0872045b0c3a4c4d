"""Settings → kafka-python's options, in one place."""

from __future__ import annotations

from typing import Any

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from penstock import kafka_options
from penstock.settings import Settings


def client_options(settings: Settings) -> dict[str, Any]:
    """What every client is given: where the brokers are and how to talk to them.

    The consumer, the connection for dead letters and replays, and the one that leaves the group.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": settings.client_id,
        "security_protocol": settings.security_protocol,
        # A dead broker is asked again soon: with the client's 30 s a restarted broker would
        # be idle for half a minute. Jittered by the client.
        "reconnect_backoff_max_ms": 2_000,
        **kafka_options.shared(settings.kafka_options),
    }
    if settings.sasl_mechanism is not None:
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_secret(),
        }
    if settings.security_protocol.endswith("SSL"):
        options |= {
            "ssl_cafile": _path(settings.ssl_cafile),
            "ssl_certfile": _path(settings.ssl_certfile),
            "ssl_keyfile": _path(settings.ssl_keyfile),
            "ssl_password": (
                settings.ssl_password.get_secret_value() if settings.ssl_password else None
            ),
            "ssl_check_hostname": settings.ssl_check_hostname,
        }
    return options


def consumer_options(settings: Settings, group: str, instance: str | None) -> dict[str, Any]:
    """Options of the consumer that the drain depends on, over ``PENSTOCK_KAFKA_OPTIONS``."""
    options: dict[str, Any] = {"allow_auto_create_topics": False, "metrics_enabled": False}
    options |= client_options(settings)
    # The parts of partitions follow from their number: penstock.kafka.fetching.
    options |= dict.fromkeys(("fetch_max_bytes", "max_partition_fetch_bytes"), settings.fetch_bytes)
    options |= kafka_options.fetching(settings.kafka_options)
    options |= {
        "group_id": group,
        "group_instance_id": instance,
        "auto_offset_reset": settings.auto_offset_reset,
        # Auto commit would commit what was *polled*, at each rebalance and close (trap 10).
        "enable_auto_commit": False,
        # KIP-429: partitions that stay are consumed on through a rebalance. Not mixable with
        # eager assignors.
        "partition_assignment_strategy": [CooperativeStickyAssignor],
        "session_timeout_ms": _ms(settings.session_timeout),
        "heartbeat_interval_ms": _ms(settings.heartbeat_interval),
        "max_poll_interval_ms": _ms(settings.max_poll_interval),
        "max_poll_records": settings.max_poll_records,
        "metadata_max_age_ms": _ms(settings.metadata_refresh),
        # Never key_deserializer/value_deserializer: one that raises makes poll() spin for
        # ever (trap 1). Handlers get bytes.
    }
    return options


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _path(path: object) -> str | None:
    return None if path is None else str(path)
