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
    CommitRefused              a commit that must be tried again once the group is stable

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
