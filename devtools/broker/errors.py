"""What can go wrong with a broker for development.

BrokerError
├── BrokerUnavailable   this machine cannot run one (no Java, no Maven, no network): skip, or mock
├── BrokerStartFailed   it was started and did not become ready; carries the end of its log
└── BrokerTimeout       a helper's deadline passed before the cluster showed the wanted state
"""

from __future__ import annotations


class BrokerError(RuntimeError):
    """Base of every error of this package."""


class BrokerUnavailable(BrokerError):
    """This machine cannot run the real broker; `reason` is a sentence for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BrokerStartFailed(BrokerError):
    """The broker died, or was not ready in time, while starting."""


class BrokerTimeout(BrokerError):
    """The cluster did not reach the wanted state within the deadline."""
