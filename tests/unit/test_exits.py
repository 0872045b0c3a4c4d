from __future__ import annotations

import os
import signal
import subprocess

import pytest

from penstock import errors, exits
from penstock.exits import Exit

#: The table of the design, written a second time on purpose.
CONTRACT = {
    "0": ("STOPPED", True),
    "4": ("RESTART", True),
    "1": ("CRASHED", False),
    "2": ("FORCED", False),
    "3": ("UNHEALTHY", False),
    "64": ("USAGE", False),
    "78": ("CONFIG", False),
    "128+n": ("KILLED", False),
}


def test_the_table_is_the_contract_in_its_order() -> None:
    assert [(k.code, k.name, k.planned) for k in exits.TABLE] == [
        (code, *rest) for code, rest in CONTRACT.items()
    ]
    assert all(kind.when for kind in exits.TABLE)


def test_every_code_has_a_row() -> None:
    assert {str(int(code)) for code in Exit} | {"128+n"} == {kind.code for kind in exits.TABLE}


@pytest.mark.parametrize("code", range(256))
def test_names_and_planned_of_every_code_there_is(code: int) -> None:
    name, planned = CONTRACT.get(str(code), ("CRASHED", False))
    if code > 128:
        name = "KILLED"
    assert exits.name_of(code) == name
    assert exits.is_planned(code) is planned
    assert exits.describe(code).startswith(f"{code} {name}")


def test_a_death_by_signal_is_described_with_its_signal() -> None:
    assert exits.describe(137) == "137 KILLED (SIGKILL)"
    assert exits.describe(139) == "139 KILLED (SIGSEGV)"
    assert exits.describe(255) == "255 KILLED"  # 127 is no signal
    assert exits.describe(4) == "4 RESTART"


@pytest.mark.parametrize(
    ("command", "code"), [("exit 0", 0), ("exit 4", 4), ("exit 200", 200), ("kill -9 $$", 137)]
)
def test_wait_statuses_of_real_processes(command: str, code: int) -> None:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", command], {})
    _, status = os.waitpid(pid, 0)
    assert exits.from_wait_status(os.waitstatus_to_exitcode(status)) == code
    shell = subprocess.run(
        ["/bin/sh", "-c", f"sh -c '{command}'; exit $?"], check=False, capture_output=True
    )
    assert shell.returncode == code  # the shell's convention is ours


def test_known_codes_are_unique_and_cover_the_table() -> None:
    known = exits.known_codes()
    assert len({code for code, _, _ in known}) == len(known)
    assert {(str(int(c)), c.name, int(c) in (0, 4)) for c in Exit} <= set(known)
    assert ("unknown", "LOST", False) in known
    assert {("137", "KILLED", False), ("139", "KILLED", False)} <= set(known)
    for code, name, planned in known:
        if code != "unknown":
            assert (exits.name_of(int(code)), exits.is_planned(int(code))) == (name, planned)


def test_deaths_seen_in_the_field_are_known() -> None:
    known = {code for code, _, _ in exits.known_codes()}
    for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGTERM):
        assert str(128 + number) in known


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.PenstockError, 1),
        (errors.ConfigError, 78),
        (errors.StateDirError, 1),
        (errors.KafkaFailure, 1),
        (errors.AuthenticationFailed, 1),
        (errors.AuthorizationFailed, 1),
        (errors.Fenced, 1),
        (errors.Unreadable, 1),
        (errors.CommitRefused, 1),
    ],
)
def test_what_a_process_that_dies_of_an_error_returns(
    error: type[errors.PenstockError], code: int
) -> None:
    assert error.exit_code == code
