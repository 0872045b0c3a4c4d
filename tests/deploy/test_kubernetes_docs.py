"""docs/kubernetes.md as typed: files saved, charts rendered, overlays built.

There is no cluster to install into, so ``helm install`` and ``upgrade`` become ``helm template``
with the same arguments, which goes through the schema and every check of the chart.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.manifests import ROOT

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ")
    for kind, body in BLOCK.findall(PAGE)
    if kind == "console"
    for line in body.splitlines()
]
HELM = [c for c in COMMANDS if c.startswith(("helm install ", "helm upgrade "))]
KUSTOMIZE = [c for c in COMMANDS if c.startswith(("kubectl kustomize ", "kubectl apply -k "))]
#: What only a cluster can answer; flags and names are looked at by people.
CLUSTER = [c for c in COMMANDS if c not in HELM + KUSTOMIZE]

Tool = Callable[[str], Path]


def save_files(directory: Path) -> None:
    for kind, body in BLOCK.findall(PAGE):
        first, _, rest = body.partition("\n")
        if kind == "yaml":
            (directory / first.removeprefix("# ")).write_text(rest)


def typed(command: str, directory: Path, binary: Path, *more: str) -> str:
    (directory / "helm").symlink_to(ROOT / "helm")
    (directory / "k8s").symlink_to(ROOT / "k8s")
    result = subprocess.run(
        [binary, *shlex.split(command), *more],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("command", HELM)
def test_helm_commands(tool: Tool, tmp_path: Path, command: str) -> None:
    save_files(tmp_path)
    words = re.sub(r"^helm (install|upgrade) ", "template ", command)
    if "--reuse-values" in words:  # the values of the first install on that page
        before = HELM[0].partition("helm/penstock ")[2]
        words = words.replace("--reuse-values", before)
    shown = typed(words, tmp_path, tool("helm"), "--kube-version", "1.35")
    assert "penstock" in shown


@pytest.mark.parametrize("command", KUSTOMIZE)
def test_kustomize_commands(tool: Tool, tmp_path: Path, command: str) -> None:
    words = re.sub(r"^kubectl (kustomize|apply -k) ", "build ", command)
    assert "kind: " in typed(words, tmp_path, tool("kustomize"))


def test_the_others_name_what_the_chart_makes(tool: Tool, tmp_path: Path) -> None:
    words = HELM[0].replace("helm install", "template")
    shown = typed(words, tmp_path, tool("helm"), "--kube-version", "1.35")
    assert "kind: Deployment\nmetadata:\n  name: orders-penstock\n" in shown
    assert "app.kubernetes.io/instance: orders\n" in shown
    assert len(CLUSTER) == 7
    for command in CLUSTER:
        assert re.search(
            r"deployment/orders-penstock\b|instance=orders\b|^helm test orders ", command
        ), command
