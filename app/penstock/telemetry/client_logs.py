"""What kafka-python may log, at any level: never a request, a response or a configuration.

At DEBUG it prints all of them: the SASL password (``SaslAuthenticateRequest``), tokens, the
values of records. At ERROR it prints a response that it cannot decode, byte for byte. What helps
to understand a group (joins, assignments, commits, metadata) has none of that in it, and is let
through; everything else is told at INFO at most.
"""

from __future__ import annotations

import logging
from typing import Final

#: Loggers whose DEBUG lines tell of groups, offsets and metadata, and of nothing else.
DETAILED: Final = ("kafka.coordinator", "kafka.cluster", "kafka.consumer.subscription_state")

_CLIENT: Final = "kafka"
#: Prints what it received when it cannot read it.
_PARSER: Final = "kafka.protocol.parser"
#: Seconds until a complaint that the client repeats word for word is told again.
_AGAIN: Final = 60.0
_MOST: Final = 256  # complaints remembered at once


class Discreet(logging.Filter):
    """Drops the client's lines that may hold secrets or records, whoever let them be made.

    On our handler, because an application may set the level of a logger itself.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line may be written, perhaps without its arguments."""
        if not _within(record.name, _CLIENT):
            return True
        if record.levelno < logging.INFO:
            return any(_within(record.name, name) for name in DETAILED)
        if record.name == _PARSER and any(isinstance(a, bytes) for a in _arguments(record)):
            record.msg, record.args = "a response cannot be decoded; its bytes are not shown", ()
        return True


class Unrepeated(logging.Filter):
    """Drops a complaint of the client that it has made in the same words within a minute.

    Of a topic that does not exist it tells ten times a second for as long as that lasts: whoever
    reads the log then finds nothing else.
    """

    def __init__(self) -> None:
        """Nothing was told."""
        super().__init__()
        self._told: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is new, or was told long enough ago."""
        if record.levelno < logging.WARNING or not _within(record.name, _CLIENT):
            return True
        try:
            said = (record.name, record.getMessage())
        except Exception:  # arguments that do not fit: the handler tells where
            return True
        last = self._told.get(said)
        # The clock may have been set back.
        if last is not None and 0 <= record.created - last < _AGAIN:
            return False
        if len(self._told) >= _MOST:
            self._told = {}
        self._told[said] = record.created
        return True


def set_level(level: str) -> None:
    """The client's loggers under ``PENSTOCK_LOG_LEVEL``; may be called again.

    It tells each reconnect at INFO, so it starts at WARNING unless all is wanted.
    """
    everything = level == "DEBUG"
    most = {"DEBUG": "INFO", "ERROR": "ERROR"}.get(level, "WARNING")
    logging.getLogger(_CLIENT).setLevel(most)
    for name in DETAILED:
        logging.getLogger(name).setLevel(logging.DEBUG if everything else logging.NOTSET)
    parser = logging.getLogger(_PARSER)
    if not any(isinstance(each, Discreet) for each in parser.filters):
        parser.addFilter(Discreet())  # also for handlers of the application's own


def _within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(parent + ".")


def _arguments(record: logging.LogRecord) -> tuple[object, ...]:
    return record.args if isinstance(record.args, tuple) else ()
