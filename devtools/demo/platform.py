"""What systemd or the kubelet does: start the service, and start it again if it exited 4."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from devtools.service import Service
from penstock.exits import Exit

from .verdict import Ending

_EXIT_TIMEOUT = 60.0  # seconds; the drain's own budget is 25
_HOOK_TIMEOUT = 60.0


class UnexpectedExit(Exception):
    """The service ended with a code that does not ask to be started again."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to ask for a restart; ``command`` is what a person would type."""

    name: str
    command: str
    ask: Callable[[Service], None]


def _signal(service: Service) -> None:
    service.send(signal.SIGUSR2)


def _post(service: Service) -> None:
    _penstock(service, "restart", "--reason", "demo")


def _hold(service: Service) -> None:
    """As the kubelet: the preStop hook, to its end; then TERM."""
    _penstock(service, "prestop")
    service.send(signal.SIGTERM)


WAYS = (
    Way("USR2", "kill -USR2 PID", _signal),
    Way("POST /restart", "penstock restart", _post),
    Way("preStop, TERM", "penstock prestop && kill -TERM PID", _hold),
)


class Platform:
    """Keeps one service running, by its exit codes."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.endings: list[Ending] = []

    def start(self) -> None:
        """Start the service and wait until it is ready."""
        # What a run leaves there must be its own.
        self.service.termination_log.write_text("")
        self.service.start().until_ready(60)

    def restart(self, way: Way) -> Ending:
        """Have it restarted; start it again if, and only if, it exited 4.

        Raises:
            UnexpectedExit: it exited with something else.
        """
        ending = self._end(way.name, way.ask)
        if ending.code != Exit.RESTART:
            raise UnexpectedExit(f"{way.name}: exit {ending.code}, where 4 was expected")
        self.start()
        return ending

    def stop(self) -> Ending:
        """End it for good."""
        return self._end("TERM", lambda service: service.send(signal.SIGTERM))

    def _end(self, how: str, ask: Callable[[Service], None]) -> Ending:
        ask(self.service)
        code = self.service.wait(_EXIT_TIMEOUT)
        ending = Ending.of(how, code, time.monotonic(), self._exit_record())
        self.endings.append(ending)
        return ending

    def _exit_record(self) -> dict[str, object]:
        try:
            return self.service.exit_record()
        except (OSError, json.JSONDecodeError):
            return {}


def _penstock(service: Service, *arguments: str) -> None:
    """The real command; a refusal shows in the service's log and in its exit code."""
    done = service.command(*arguments, timeout=_HOOK_TIMEOUT)
    with service.log_path.open("a") as log:
        log.write(f"$ penstock {' '.join(arguments)}\n{done.stdout}{done.stderr}")
