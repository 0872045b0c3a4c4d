"""What a process does first: names that are imported late, signals that are held early."""

from __future__ import annotations

import ast
import importlib
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import penstock
from penstock import held
from penstock.supervisor import signals


def test_everything_that_becomes_a_request_is_held() -> None:
    assert set(held.SIGNALS) == {*signals.REQUESTS, signal.SIGUSR1}


def test_holding_and_restoring_a_mask() -> None:
    before = held.hold()
    try:
        assert set(held.SIGNALS) <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
        held.release()
        assert not set(held.SIGNALS) & signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        held.restore(before)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


@pytest.mark.parametrize("name", penstock.__all__)
def test_a_public_name_is_where_type_checkers_are_told_it_is(name: str) -> None:
    assert name in dir(penstock)
    if name == "__version__":
        return
    tree = ast.parse(Path(penstock.__file__).read_text())
    homes = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    assert getattr(penstock, name) is getattr(importlib.import_module(homes[name]), name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'penstock' has no attribute 'Ap'"):
        penstock.Ap  # type: ignore[attr-defined]  # noqa: B018 (that is the test)


def test_the_command_begins_where_signals_are_held() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"penstock": "penstock.__main__:main"}


def modules_after(statement: str) -> set[str]:
    """What is loaded by it, beyond what the interpreter loads."""
    code = f"import sys; before = set(sys.modules)\n{statement}\nprint(*set(sys.modules) - before)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing() -> None:
    assert modules_after("import penstock") == {"penstock"}


def test_a_star_import_brings_every_name() -> None:
    assert "penstock.app" in modules_after("from penstock import *\nassert App and stop and Retry")


def test_a_probe_does_not_import_the_application_side() -> None:
    """``penstock health`` runs every few seconds, beside a service that needs the CPU."""
    loaded = modules_after("from penstock import cli, client")
    assert not {"penstock.app", "penstock.policy", "pydantic", "logging"} & loaded
