"""Writes the parts of the Helm chart that are facts of the code.

``python -m devtools.chart`` writes the exit table (``files/exits.json``), the figures of the memory
formula (``files/memory.json``), the schema of
``settings`` in ``values.schema.json``, and, where helm-docs is, the README; ``--check`` only
tells (exit 1) what has drifted.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from devtools import tools
from penstock import exits, memory
from penstock.settings import Settings

CHART: Final = Path(__file__).resolve().parent.parent / "helm" / "penstock"


def exit_table() -> str:
    """``files/exits.json``: what ``penstock exits --json`` prints."""
    rows = [
        {"code": k.code, "name": k.name, "planned": k.planned, "when": k.when} for k in exits.TABLE
    ]
    return json.dumps(rows, indent=2) + "\n"


def memory_figures() -> str:
    """``files/memory.json``: what the formula needs, in bytes, and the settings' defaults."""
    names = ("workers", "buffer_bytes", "max_poll_records", "fetch_bytes", "memory_high")
    figures = {
        "supervisor": memory.SUPERVISOR,
        "worker": memory.WORKER,
        "record": memory.RECORD,
        "copies": memory.COPIES,
        "settings": {name: Settings.model_fields[name].default for name in names},
    }
    return json.dumps(figures, indent=2) + "\n"


def settings_schema() -> dict[str, Any]:
    """The schema of ``settings``: every field of the service's settings, and no other name."""
    model = Settings.model_json_schema()
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _field(schema) for name, schema in model["properties"].items()},
    }


def _field(schema: dict[str, Any]) -> dict[str, Any]:
    """A field as the values may have it: without defaults, lists as text as well."""
    kept = {k: v for k, v in schema.items() if k not in {"title", "default", "format", "writeOnly"}}
    description = kept.pop("description", None)
    choices = [c for c in kept.pop("anyOf", []) if c != {"type": "null"}]
    for choice in choices:  # "or nothing": leave it out instead
        kept |= {k: v for k, v in choice.items() if k not in {"format", "writeOnly"}}
    if kept.get("type") == "array":
        kept = {"type": ["array", "string"], "items": kept["items"]}
    return kept | ({"description": description} if description else {})


def schema() -> str:
    """``values.schema.json`` with that part written anew."""
    whole = json.loads((CHART / "values.schema.json").read_text())
    whole["properties"]["settings"] = settings_schema()
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def readme(helm_docs: Path) -> str:
    """``README.md``, made from the comments in ``values.yaml`` in a copy of the chart."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "penstock"
        shutil.copytree(CHART, copy)
        subprocess.run(
            [helm_docs, "-c", copy, "--sort-values-order", "file", "--log-level", "warning"],
            check=True,
        )
        return (copy / "README.md").read_text()


def generated() -> dict[Path, str]:
    """Every generated file with what it should hold; the README only where helm-docs is."""
    files = {
        CHART / "files" / "exits.json": exit_table(),
        CHART / "files" / "memory.json": memory_figures(),
        CHART / "values.schema.json": schema(),
    }
    helm_docs = tools.find("helm-docs")
    if helm_docs is not None:
        files[CHART / "README.md"] = readme(helm_docs)
    return files


def main(argv: list[str]) -> int:
    """Rewrite, or with ``--check`` tell."""
    check = "--check" in argv
    drifted = [
        (path, text)
        for path, text in generated().items()
        if not path.exists() or path.read_text() != text
    ]
    for path, text in drifted:
        if not check:
            path.write_text(text)
        print(f"{'drifted' if check else 'rewritten'}: {path.relative_to(CHART.parents[1])}")
    return 1 if drifted and check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
