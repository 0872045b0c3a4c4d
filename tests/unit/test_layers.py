"""Each layer imports only those below it, and only ``kafka/`` imports a client."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "app"

#: Lower number, lower layer. Modules that are not named here are the pure core, layer 0.
LAYERS = {
    "testing": 1,
    "telemetry": 1,
    "kafka": 1,
    "http": 1,
    "worker": 2,
    "supervisor": 2,
    "cli": 3,
    "client": 3,
    "configuration": 3,
    "dlq": 3,
    "follow": 3,
    "letter_text": 3,
    "outcome": 3,
    "render": 3,
    "__main__": 4,
}
#: Between modules of the same layer that do not belong together.
APART = [("worker", "supervisor"), ("supervisor", "worker"), ("kafka", "http"), ("http", "kafka")]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def part(module: str) -> str:
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else ""


MODULES = sorted(p for p in (ROOT / "penstock").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    own = part(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for name in imports(path):
        if name == "kafka" or name.startswith("kafka."):
            assert own == "kafka", f"{path.name} imports the client"
        if not name.startswith("penstock."):
            continue
        other = part(name)
        assert LAYERS.get(other, 0) <= LAYERS.get(own, 0), f"{own} must not import {name}"
        assert (own, other) not in APART, f"{own} must not import {name}"
