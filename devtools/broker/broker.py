"""A real Apache Kafka broker for tests, the demo and the bench."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from .config import Ports, server_properties, to_text
from .errors import BrokerError, BrokerStartFailed
from .jvm import LOG, Jvm
from .ports import HOST, free_ports
from .proxy import CutProxy
from .ready import wait_until_ready
from .runtime import prepare
from .storage import format_directory

START_TIMEOUT = 60.0
"""Seconds until a start is given up; it takes about two on an idle machine."""

STOP_TIMEOUT = 20.0
"""Seconds a clean stop may take before the broker is killed; it takes about one."""


class Broker:
    """One Kafka node (KRaft, broker and controller in one JVM) on loopback, with its own data.

    As a context manager it starts, and is gone with its data at the end. The ports are the same for
    its whole life, so clients find it again after `restart()`.

    >>> with Broker() as broker:
    ...     run_something(broker.bootstrap)
    ...     broker.kill()
    ...     broker.restart()        # same ports, same data

    It never outlives this Python process, whatever ends that. `pause`, `kill` and the like
    may be called from another thread than `start` was, but not from two at once.

    Args:
        port: of the plain listener; a free one when None.
        properties: broker settings on top of `config.DEFAULTS`.
        sasl_users: passwords by user name. Adds a SASL_PLAINTEXT listener (SASL/PLAIN) and the
            authorizer: on that listener, what no ACL allows is denied. Clients of the plain
            listener remain super users.
        super_users: names among `sasl_users` who may do anything.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        properties: Mapping[str, str] | None = None,
        sasl_users: Mapping[str, str] | None = None,
        super_users: Iterable[str] = (),
    ) -> None:
        controller, plain, proxied, proxy, sasl = free_ports(5)
        self._ports = Ports(controller, port or plain, proxied, proxy, sasl)
        self._properties = dict(properties or {})
        self._sasl_users = None if sasl_users is None else dict(sasl_users)
        self._super_users = tuple(super_users)
        self._directory: Path | None = None
        self._jvm: Jvm | None = None
        self._proxy: CutProxy | None = None
        self._crashed = False
        self._owner = os.getpid()

    # The life of a broker, in order.

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Start the broker and return when it is ready; does nothing if it runs.

        Raises:
            BrokerUnavailable: this machine cannot run it.
            BrokerStartFailed: it died or was not ready within `timeout` seconds; with its log.
        """
        if self.alive:
            return
        runtime = prepare()
        if self._directory is None:
            self._directory = self._make_directory(runtime.checkpoint)
        self._write_properties(self._directory)
        main = ("kafka.Kafka", str(self._directory / "server.properties"))
        self._jvm = Jvm(runtime.java, runtime.classpath, runtime.flags, main, self._directory)
        try:
            if not wait_until_ready(self._ports.plain, timeout, self._check_alive):
                self._fail_start(f"was not ready after {timeout:.0f} s")
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Stop it in good order (TERM), after `timeout` seconds by force; the data stays."""
        if self._jvm is not None:
            self._crashed = not self._jvm.terminate(timeout)
            self._jvm = None

    def kill(self) -> None:
        """Kill it (SIGKILL), as a crash would; the data stays as it is."""
        if self._jvm is not None:
            self._jvm.kill()
            self._jvm = None
            self._crashed = True

    def restart(self, timeout: float = START_TIMEOUT) -> None:
        """Stop it if it runs, and start it with the same ports and data; works after `kill()`.

        Raises:
            BrokerStartFailed: see `start`.
        """
        self.stop()
        self.start(timeout)

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open and nothing answers.

        Raises:
            BrokerError: it is not running.
        """
        self._running().send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused broker go on (SIGCONT).

        Raises:
            BrokerError: it is not running.
        """
        self._running().send(signal.SIGCONT)

    def close(self) -> None:
        """End it for good, with its proxy and its data. May be called more than once."""
        if os.getpid() != self._owner:
            return  # a forked child's atexit must not end its parent's broker
        atexit.unregister(self.close)
        self.kill()  # nobody will read this data again: no reason to wait for a clean stop
        if self._proxy is not None:
            self._proxy.close()
            self._proxy = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # Where it is.

    @property
    def bootstrap(self) -> str:
        """Address of the plain listener, as host:port."""
        return f"{HOST}:{self._ports.plain}"

    @property
    def proxied_bootstrap(self) -> str:
        """Address of the listener whose every connection goes through `proxy`, as host:port."""
        return self.proxy.address

    @property
    def proxy(self) -> CutProxy:
        """The proxy in front of the proxied listener; it is started when first asked for."""
        if self._proxy is None:
            self._proxy = CutProxy((HOST, self._ports.proxied), port=self._ports.proxy)
        return self._proxy

    @property
    def sasl_bootstrap(self) -> str:
        """Address of the SASL_PLAINTEXT listener, as host:port.

        Raises:
            BrokerError: the broker was made without `sasl_users`.
        """
        if self._sasl_users is None:
            raise BrokerError("this broker has no SASL listener: make it with sasl_users=…")
        return f"{HOST}:{self._ports.sasl}"

    @property
    def pid(self) -> int:
        """The JVM's process id.

        Raises:
            BrokerError: it is not running.
        """
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Whether the JVM runs (or is paused)."""
        return self._jvm is not None and self._jvm.alive

    @property
    def log_path(self) -> Path:
        """The broker's log, of all its starts.

        Raises:
            BrokerError: it was never started, or is closed.
        """
        if self._directory is None:
            raise BrokerError("this broker has no directory: it was not started, or is closed")
        return self._directory / LOG

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of the log; empty if there is none."""
        try:
            text = self.log_path.read_text("utf-8", errors="replace")
        except (BrokerError, FileNotFoundError):
            return ""
        return "\n".join(text.splitlines()[-lines:])

    # Helpers.

    def _make_directory(self, checkpoint: Path) -> Path:
        directory = Path(tempfile.mkdtemp(prefix="penstock-broker-"))
        atexit.register(self.close)
        format_directory(directory / "data", checkpoint)
        return directory

    def _write_properties(self, directory: Path) -> None:
        settings = server_properties(
            directory / "data",
            self._ports,
            sasl_users=self._sasl_users,
            super_users=self._super_users,
            after_crash=self._crashed,
            overrides=self._properties,
        )
        (directory / "server.properties").write_text(to_text(settings), "utf-8")

    def _running(self) -> Jvm:
        if self._jvm is None or not self._jvm.alive:
            raise BrokerError("the broker is not running")
        return self._jvm

    def _check_alive(self) -> None:
        if not self.alive:
            self._fail_start("ended while starting")

    def _fail_start(self, what: str) -> NoReturn:
        raise BrokerStartFailed(f"the broker {what}; the end of its log:\n{self.log_tail()}")
