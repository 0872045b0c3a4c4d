"""The platform's tools, and skips that say how to get them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools import tools
from devtools.image import Images, images
from devtools.rootfs import TreeUnavailable
from devtools.tools import build
from tests.conftest import unavailable

#: The word of PENSTOCK_REQUIRE that stands for each tool, and how to get it.
_GO = ("helm", "`make tools` builds it, where there is Go; or put it on the PATH")
_WHERE = {
    "helm": _GO,
    "helm-unittest": _GO,
    "helm-docs": _GO,
    "kubeconform": _GO,
    "kustomize": _GO,
    "kube-linter": _GO,
    "kube-score": _GO,
    "compose-config": _GO,
    "promtool": ("promtool", "Debian's package `prometheus` has it"),
    "prometheus": ("promtool", "Debian's package `prometheus` has it"),
    "buildah": ("buildah", "Debian's package `buildah` has it"),
    "crun": ("buildah", "Debian's package `crun` has it"),
    "systemd-analyze": ("systemd", "Debian's package `systemd` has it"),
    "systemd-nspawn": ("systemd", "Debian's package `systemd-container` has it"),
    "debootstrap": ("systemd", "Debian's package `debootstrap` has it"),
}


@pytest.fixture(scope="session")
def tool() -> Callable[[str], Path]:
    """``tool("helm")`` is its path; without it the test is skipped, or fails where required."""

    def find(name: str) -> Path:
        word, remedy = _WHERE[name]
        if word == "helm":
            build.wait()  # `make tools` may be at it right now
        path = tools.find(name)
        if path is None:
            unavailable(word, f"{name} not found: {remedy}")
            raise AssertionError  # unavailable() never returns
        return path

    return find


@pytest.fixture(scope="session")
def built(tool: Callable[[str], Path]) -> Images:
    """The Dockerfile's image, and images of users' own on top of it."""
    buildah = tool("buildah")
    if os.geteuid() != 0:
        unavailable("buildah", "building without an engine needs root")
    try:
        return images(buildah)
    except TreeUnavailable as error:
        unavailable("buildah", str(error))
        raise
