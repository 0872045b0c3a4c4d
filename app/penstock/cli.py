"""The command line.

Heavy modules are imported inside the commands that need them: ``penstock health`` and
``penstock prestop`` are exec hooks, started anew each time.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

import penstock
from penstock import exits, render
from penstock.errors import PenstockError
from penstock.exits import Exit
from penstock.terminal import Changes
from penstock.terminal import literal as _literal
from penstock.terminal import say as _say

if TYPE_CHECKING:
    from penstock.client import Answer, Client

F = TypeVar("F", bound=Callable[..., Any])

_INTERRUPTED: Final = 130
_WAIT: Final = 60.0  # seconds that --wait waits
_PRESTOP: Final = 25.0  # seconds of a drain when neither the service nor the setting tells
_MARGIN: Final = 2.0  # seconds after the service's own deadline until it is given up


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status, never click's own (2 means FORCED here)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        with cli.make_context("penstock", [], resilient_parsing=True) as context:
            _say(cli.get_help(context), err=True)
        return Exit.USAGE
    try:
        result = cli.main(arguments, prog_name="penstock", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except PenstockError as error:
        for sentence in str(error).splitlines():
            _say(f"penstock: {sentence}", err=True)
        return error.exit_code
    return result if isinstance(result, int) else 0


class _Commands(click.Group):
    """``dlq`` has a dozen options a command: it is loaded only for those who look at it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "dlq"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "dlq":
            return super().get_command(ctx, cmd_name)
        from penstock.dlq import dlq  # noqa: PLC0415 (see above)

        return dlq


@click.group(
    cls=_Commands,
    epilog="\n\n".join(
        (
            _literal(
                "Examples:\n"
                "  penstock run shop.orders:app      run a service\n"
                "  penstock restart --wait           drain it, then exit 4\n"
                "  penstock status                   see what it does"
            ),
            _literal(
                "Exit codes of `run` (all of them: penstock exits):\n"
                + render.table(
                    ("", "", ""),
                    (
                        ("", k.code, f"{k.name}{', planned' if k.planned else ''}")
                        for k in exits.TABLE
                    ),
                ).lstrip("\n")
            ),
            "Settings are PENSTOCK_* in the environment; `penstock check MODULE:APP` lists them.",
        )
    ),
)
@click.version_option(penstock.__version__, prog_name="penstock")
def cli() -> None:
    """Kafka consumers that can be restarted on purpose: drain, commit, exit 4."""


# -- the service -----------------------------------------------------------------------


@cli.command(epilog="Example: PENSTOCK_BOOTSTRAP_SERVERS=kafka:9092 penstock run shop.orders:app")
@click.argument("target", metavar="MODULE:APP")
def run(target: str) -> int:
    """Run the consumer until it is asked to stop or restart.

    TERM, INT and QUIT stop it (exit 0), USR2 restarts it (exit 4). Both drain first.
    """
    from penstock.supervisor.run import run as run_service  # noqa: PLC0415 (not for the others)

    return run_service(target)


@cli.command(
    short_help="Print the effective configuration, and validate it.",
    epilog="Exits 78 when something is wrong, naming the setting and the remedy.",
)
@click.argument("target", metavar="MODULE:APP")
def check(target: str) -> int:
    """Print the effective configuration, secrets masked, and validate it."""
    from penstock import configuration  # noqa: PLC0415 (imports pydantic and the application)

    _say(render.table(("NAME", "VALUE", "SOURCE"), configuration.rows(target)), result=True)
    _say(f"\nmemory at most: {configuration.memory(target)}")
    for note in configuration.notes(target):
        _say(f"penstock: note: {note}", err=True)
    return 0


@cli.command(name="exits")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def exits_(*, as_json: bool) -> None:
    """Print what each exit code means."""
    if as_json:
        rows = [
            {"code": k.code, "name": k.name, "planned": k.planned, "when": k.when}
            for k in exits.TABLE
        ]
        _say(json.dumps(rows, indent=2))
    else:
        _say(render.exit_codes())


# -- asking a running service ----------------------------------------------------------


def _url(command: F) -> F:
    return click.option(
        "--url",
        metavar="URL",
        help="The service  [default: http://127.0.0.1:$PENSTOCK_HTTP_PORT, 8080 if unset]",
    )(command)


def _asking(command: F) -> F:
    reason = click.option("--reason", default="", help="Free text for logs and the exit record.")
    return _url(reason(command))


class _Seconds(click.FloatRange):
    """A number of seconds: also what compares with nothing (``nan``) is out of range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value} is no number of seconds.", param, ctx)
        return seconds


def _only_with_wait(ctx: click.Context, _param: click.Parameter, value: float | None) -> float:
    """``--wait`` is read before it (``is_eager``)."""
    if value is None:
        return _WAIT
    if not ctx.params.get("wait"):
        raise click.UsageError("--timeout is how long --wait waits: give both, or neither.", ctx)
    return value


def _waiting(command: F) -> F:
    wait = click.option(
        "--wait", is_flag=True, is_eager=True, help="Wait for what becomes of it, and tell."
    )
    timeout = click.option(
        "--timeout",
        type=_Seconds(min=0, min_open=True),
        callback=_only_with_wait,
        help=f"Seconds that --wait waits.  [default: {_WAIT:g}]",
    )
    return wait(timeout(command))


def _client(url: str | None) -> Client:
    from penstock import client  # noqa: PLC0415 (http.client is the half of start-up)

    return client.Client(url or client.default_url(), os.environ)


_AUTHORITY: Final = (
    "The control token is PENSTOCK_CONTROL_TOKEN, the file PENSTOCK_CONTROL_TOKEN_FILE, or the "
    "one that the service left in PENSTOCK_RUNTIME_DIR."
)
_ASK_EPILOG: Final = (
    f"Exits 0 when the service accepted, 1 when it refused or cannot be reached. {_AUTHORITY}"
)
_WAIT_EPILOG: Final = (
    "Exits 0 when the service accepted; with --wait, when it was done as asked. 1: refused, "
    "cannot be reached, or it ended otherwise (the reason is told). 69: it is gone, and nothing "
    f"here tells how it ended. 75: not over within --timeout. {_AUTHORITY}"
)


@cli.command(epilog=_WAIT_EPILOG)
@_asking
@_waiting
def restart(*, url: str | None, reason: str, wait: bool, timeout: float) -> int:
    """Drain the service, then let it exit 4, to be started again.

    With --wait, until it is ready again, if something starts it within ten seconds.

    Example: penstock restart --reason "new certificates" --wait
    """
    return _end(_client(url), "restart", reason, timeout if wait else None)


@cli.command(epilog=_WAIT_EPILOG)
@_asking
@_waiting
def stop(*, url: str | None, reason: str, wait: bool, timeout: float) -> int:
    """Drain the service, leave the group, then let it exit 0."""
    return _end(_client(url), "stop", reason, timeout if wait else None)


@cli.command(epilog=_ASK_EPILOG)
@_asking
def quiet(*, url: str | None, reason: str) -> int:
    """Take nothing new in, but keep the assignment (undo: resume)."""
    return _ask(_client(url), "quiet", reason)


@cli.command(epilog=_ASK_EPILOG)
@_asking
def resume(*, url: str | None, reason: str) -> int:
    """Take work in again after quiet."""
    return _ask(_client(url), "resume", reason)


@cli.command(epilog=_WAIT_EPILOG, short_help="Replace the workers in place, one after another.")
@_asking
@_waiting
def reload(*, url: str | None, reason: str, wait: bool, timeout: float) -> int:
    """Replace the workers in place, one after another; the service does not exit.

    It is given up, and the old workers go on, if the new code does not start.
    """
    return _end(_client(url), "reload", reason, timeout if wait else None)


def _ask(client: Client, kind: str, reason: str) -> int:
    return 1 if _asked(client, kind, reason) is None else 0


def _asked(client: Client, kind: str, reason: str) -> Answer | None:
    # Bytes that are no text in this locale come as surrogates, which JSON cannot carry.
    plain = reason.encode(errors="surrogateescape").decode(errors="replace")
    answer = client.post(f"/{kind}", {"reason": plain})
    if answer.code == 409:  # noqa: PLR2004 (Conflict)
        _say(f"penstock: {answer.detail}", err=True)
        return None
    state = answer.json.get("status", {}).get("state")
    _say(f"{kind} {answer.json.get('outcome')}: the service is {state}")
    return answer


def _end(client: Client, kind: str, reason: str, wait: float | None) -> int:
    from penstock import follow  # noqa: PLC0415 (as in _client)
    from penstock.outcome import progress  # noqa: PLC0415 (as in _client)

    answer = _asked(client, kind, reason)
    if answer is None:
        return 1
    if wait is None:
        if kind == "reload":
            _say("`penstock status` tells what becomes of it, --wait waits for that")
        return 0
    asked = follow.Asked.of(kind, answer)
    what = follow.reload if kind == "reload" else follow.to_the_end
    changes = Changes()
    try:
        verdict = what(client, asked, wait, lambda report: changes.show(*progress(report)))
    finally:
        changes.clear()
    if verdict.status:
        _say(f"penstock: {verdict.text}", err=True)
    else:
        _say(verdict.text)
    return verdict.status


@cli.command()
@_url
@click.option("--json", "as_json", is_flag=True, help="What /status says, as it is.")
def status(*, url: str | None, as_json: bool) -> None:
    """Show state, workers, lag, work in flight and past exits."""
    report = _client(url).status()
    _say(json.dumps(report, indent=2) if as_json else render.status(report), result=True)


_PROBES: Final = {"live": "/livez", "ready": "/readyz", "started": "/startupz"}


@cli.command(epilog="Docker: HEALTHCHECK CMD penstock health")
@click.argument("probe", type=click.Choice(list(_PROBES)), default="live")
@_url
def health(*, probe: str, url: str | None) -> int:
    """Ask a probe: exit 0 for yes, 1 for no (or no answer)."""
    answer = _client(url).get(_PROBES[probe])
    if answer.code == 200:  # noqa: PLR2004 (OK)
        _say(f"{probe}: ok")
        return 0
    reasons = "; ".join(map(str, answer.json.get("reasons", []))) or answer.detail
    _say(f"{probe}: failing: {reasons}")
    return 1


@cli.command(
    short_help="Drain, and stay up until TERM comes; for preStop hooks.",
    epilog="Kubernetes: lifecycle.preStop.exec.command: [penstock, prestop]",
)
@_url
@click.option(
    "--timeout",
    type=_Seconds(min=0),
    help="Seconds to wait for the drain  [default: what the service says it has left]",
)
def prestop(*, url: str | None, timeout: float | None) -> int:
    """Ask for a held restart and wait until it has drained; for preStop hooks.

    The service stays up until TERM comes, so that the exit code is 4. Always exits 0: a hook
    that fails would not keep the pod, but it would cut the drain short.
    """
    try:
        _say(_prestop(_client(url), timeout))
    except Exception as error:  # anything at all must not fail the pod's deletion
        _say(f"penstock: prestop did not drain: {error}", err=True)
    return 0


def _prestop(client: Client, timeout: float | None) -> str:
    from penstock.client import ServiceGoneError  # noqa: PLC0415 (as in _client)

    answer = client.post("/restart", {"hold": True, "source": "prestop"})
    try:  # from here on, a service that is gone is one that has ended its drain
        status = answer.json.get("status") or client.status()  # a 409 carries no status
        budget = _budget(status) if timeout is None else timeout
        if _drained(status) or any(map(_drained, client.poll(budget))):
            return "drained"
    except ServiceGoneError:
        return "the service has exited"
    return f"not drained within {budget:g} s; TERM will end what is left"


def _drained(status: dict[str, Any]) -> bool:
    return all(worker["state"] == "stopped" for worker in status["workers"])


def _budget(status: dict[str, Any]) -> float:
    drain = status.get("drain")
    if drain:
        return float(drain["left_seconds"]) + _MARGIN
    try:
        return float(os.environ.get("PENSTOCK_DRAIN_TIMEOUT", "")) + _MARGIN
    except ValueError:
        return _PRESTOP + _MARGIN
