"""Giving up the seat of a static member (KIP-345), through the admin API.

kafka-python's static members never leave by themselves (trap 11), which is right for a restart.
At a stop, the partitions would stand still for the whole session timeout; also when the member
that stops has not even connected, because its seat may be one that the process before it kept.
"""

from __future__ import annotations

import time
from typing import Any, Final

import structlog
from kafka import KafkaAdminClient
from kafka import errors as k
from kafka.admin import MemberToRemove

from penstock.error_text import said
from penstock.kafka.config import client_options
from penstock.settings import Settings

log = structlog.get_logger("penstock.kafka")

#: Nobody has the seat any more, or somebody else has taken it, and keeps it.
_NOT_OURS: Final = (k.UnknownMemberIdError, k.FencedInstanceIdError, k.GroupIdNotFoundError)
#: Seconds between two tries.
_PAUSE: Final = 0.2


def give_up(
    settings: Settings, group: str, instance: str, member: str, timeout: float
) -> str | None:
    """Give up the seat ``instance`` of a group within ``timeout`` seconds.

    ``member``: the member id that we had, empty if we had none yet; with it, whoever fenced us
    keeps the seat. Returns why the seat may still be held, ``None`` when it is not. Never raises.
    """
    until = time.monotonic() + timeout
    while True:
        left = until - time.monotonic()
        try:
            _try(settings, group, MemberToRemove(member or None, instance), max(0.5, left))
        except Exception as error:
            final = not isinstance(error, k.RetriableError) or isinstance(
                error, k.KafkaTimeoutError
            )
            if final or left <= _PAUSE:
                why = f"could not give up the seat {instance} in group {group}: {said(error)}"
                log.warning(
                    "could not leave the group; its partitions wait for the session timeout",
                    instance_id=instance,
                    error=said(error),
                )
                return f"{why}; its partitions wait for PENSTOCK_SESSION_TIMEOUT"
        else:
            return None
        time.sleep(_PAUSE)


def _try(settings: Settings, group: str, seat: Any, timeout: float) -> None:
    milliseconds = round(timeout * 1000)
    admin = KafkaAdminClient(
        **client_options(settings)
        | {
            "bootstrap_timeout_ms": milliseconds,
            "request_timeout_ms": max(1_000, milliseconds),
        }
    )
    try:
        for refusal in admin.remove_group_members(group, [seat]).values():
            if refusal is not k.NoError:
                raise refusal
    except _NOT_OURS as error:
        log.info("the group did not take our leave", error=type(error).__name__)
    finally:
        admin.close()
