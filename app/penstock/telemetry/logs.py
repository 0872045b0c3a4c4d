"""Logging: one line an event, JSON or for eyes, on stderr, from every process alike.

structlog's and the standard library's loggers end in the same handler, so that Penstock, the
client library, the web server and the user's own code read the same.
"""

from __future__ import annotations

import logging
import os
import select
import stat
import sys
from typing import Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from penstock.telemetry import client_logs

#: Seconds that a line waits for a full pipe; the next ones do not, until it is read again.
_PATIENCE: Final = 1.0

_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")

#: Said first, in this order: a person reads raw JSON from the left.
_FIRST: Final = ("timestamp", "level", "process", "logger", "event")


def configure(format: str, level: str, *, process: str) -> None:  # noqa: A002 (the setting's name)
    """Send every log line of this process to stderr; may be called again.

    ``format`` is ``json`` or ``console``, ``level`` ``DEBUG``, ``INFO``, ``WARNING`` or
    ``ERROR``; anything else is ``json`` and ``INFO``, because the line that tells of a bad
    setting needs a log as well. ``process`` names this process on every line (``supervisor``,
    ``worker-0``). What kafka-python may say is decided in
    :mod:`penstock.telemetry.client_logs`.
    """
    level = level.upper() if level.upper() in _LEVELS else "INFO"
    handler = LineHandler()
    handler.setFormatter(_formatter(format, process))
    handler.addFilter(client_logs.Discreet())
    if level != "DEBUG":
        handler.addFilter(client_logs.Unrepeated())
    root = logging.getLogger()
    for old in list(root.handlers):
        # Ours from before, and the one of basicConfig(), which would print each line twice.
        if isinstance(old, LineHandler) or type(old) is logging.StreamHandler:
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    client_logs.set_level(level)
    logging.getLogger("uvicorn").setLevel("WARNING")  # its start and stop are ours to tell
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


class LineHandler(logging.Handler):
    """Writes each line to stderr with one ``write()``, and never raises.

    Lines of several processes on one pipe do not mix then (up to PIPE_BUF, 4096 bytes, by
    POSIX; in practice on files and terminals too). A log that cannot be written is not worth
    a record that is not processed: a closed stderr or a broken pipe drops the line, and so does
    a pipe that stays full (its reader sleeps, ``penstock run … | less``): it is waited for once.
    """

    def __init__(self) -> None:
        """One for a process."""
        super().__init__()
        self._patience = _PATIENCE
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Format and write one line."""
        try:
            text = self.format(record)
        except Exception as error:  # arguments that do not fit: say where, go on
            text = f"unformattable log line at {record.pathname}:{record.lineno}: {error!r}"
        if self._dropped:
            text += f"\n{self._dropped} log lines before this one were dropped: nobody read them"
        data = (text + "\n").encode(errors="backslashreplace")
        try:
            # Looked up each time: whoever replaces sys.stderr may close the old one, and its
            # number may then belong to a socket.
            taken = self._write(sys.stderr.fileno(), data)
        except (OSError, ValueError, AttributeError):  # broken pipe, closed, None
            return
        self._dropped = 0 if taken else self._dropped + 1
        self._patience = _PATIENCE if taken else 0.0

    def _write(self, target: int, data: bytes) -> bool:
        """Whether it was taken in time; what is cut off in a full pipe is lost."""
        # A pipe that is ready takes so much without blocking.
        pipe = stat.S_ISFIFO(os.fstat(target).st_mode)
        most = select.PIPE_BUF if pipe else len(data)
        poller = select.poll()
        poller.register(target, select.POLLOUT)
        while data:  # nearly always once
            if not poller.poll(self._patience * 1000):
                return False
            data = data[os.write(target, data[:most]) :]
        return True


def _formatter(format: str, process: str) -> logging.Formatter:  # noqa: A002 (as above)
    def name_process(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_process,
        structlog.processors.StackInfoRenderer(),
    ]
    final: list[Processor]
    if format == "console":
        # The plain traceback: the pretty one prints local variables, secrets among them.
        final = [
            structlog.dev.ConsoleRenderer(
                colors=_is_terminal(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    else:
        final = [
            structlog.processors.format_exc_info,
            _in_order,
            structlog.processors.JSONRenderer(),
        ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
        processors=[
            *shared,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *final,
        ],
    )


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    first = {name: event[name] for name in _FIRST if name in event}
    return {**first, **event}


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # None, closed
        return False
