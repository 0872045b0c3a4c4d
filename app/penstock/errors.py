"""Every error Penstock raises, in one tree.

    PenstockError
    ├── ConfigError            bad setting, impossible combination, unimportable app   exit 78
    ├── SidecarMissing         a sidecar to wait for did not come up                    exit 1
    ├── StateDirError          the state directory cannot be used (degrades, never fatal)
    └── KafkaFailure           the cluster refused us for good                         exit 1
        ├── AuthenticationFailed
        ├── AuthorizationFailed
        ├── Fenced             another process took this group.instance.id
        └── Unreadable         corrupt batch, or a compression codec that is not installed
    Poison                     raised by a handler: this record will never succeed
    ├── Undecodable            the value is not what the handler's annotation says
    └── KilledItsProcess       in place of calling the handler: it would kill again
    HandlerTimeout             a record took longer than its time limit
    CommitRefused              a commit that must be tried again once the group is stable
    NotSent                    a topic did not take a record (dead letter, replay)
    ├── TooLarge               it takes none of that size
    └── Unconfirmed            no broker confirmed it in time; it may be there or not

``exit_code`` on the class is the status that a process which dies of it returns.
"""

from __future__ import annotations

from typing import ClassVar

from penstock.exits import Exit


class PenstockError(Exception):
    """Base of all errors below; the text is a sentence for a person."""

    exit_code: ClassVar[int] = Exit.CRASHED


class ConfigError(PenstockError):
    """A setting, or the application, is wrong. The text names it and the remedy."""

    exit_code: ClassVar[int] = Exit.CONFIG


class StateDirError(PenstockError):
    """The state directory cannot hold the journal. The service goes on without one."""


class SidecarMissing(PenstockError):
    """A sidecar that the service has to wait for did not become ready in time."""


class KafkaFailure(PenstockError):
    """The cluster refused this client in a way that trying again will not mend."""


class AuthenticationFailed(KafkaFailure):
    """Wrong credentials, or a mechanism that the broker does not offer."""


class AuthorizationFailed(KafkaFailure):
    """The principal may not use a topic or group. The text names both."""


class Fenced(KafkaFailure):
    """Another member joined with the same ``group.instance.id`` (KIP-345)."""


class Unreadable(KafkaFailure):
    """A batch cannot be read: its checksum is wrong, or its codec is not installed.

    Going on would lose records, so the worker stops and names the partition.
    """


class CommitRefused(PenstockError):
    """A commit did not take (rebalance, coordinator moving): keep polling and try again."""


class Poison(PenstockError):
    """Raise it in a handler when no further try can help; the record goes where ``then`` says.

    A batch handler can name the culprit: ``Poison("no amount", index=3)`` is about the fourth
    record of its list, and the others are handed over again without it.
    """

    def __init__(self, reason: str = "", *, index: int | None = None) -> None:
        super().__init__(reason)
        self.index = index


class Undecodable(Poison):
    """A record's value is not what the handler's annotation says."""


class KilledItsProcess(Poison):
    """A record that was handled alone, after several deaths in its company, and killed again."""

    def __init__(self, times: int) -> None:
        super().__init__(f"killed its process {times} times")
        self.times = times


class HandlerTimeout(PenstockError, TimeoutError):
    """The handler took longer than the subscription's ``timeout``."""


class NotSent(PenstockError):
    """A topic did not take a record. The text names the topic and the remedy."""


class TooLarge(NotSent):
    """The topic takes no record of that size."""


class Unconfirmed(NotSent):
    """No broker confirmed the record in time: it may be in the topic or not."""
