"""buildah, with a storage of our own: the machine's images are neither seen nor touched."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

_TIMEOUT: Final = 600.0  # seconds; a build from nothing takes 60 on two busy cores
_CA: Final = "/etc/ssl/certs/ca-certificates.crt"  # where Debian has it

#: How this machine reaches the package index is its own business, and no part of a Dockerfile.
_PIP_OPTIONS: Final = frozenset(
    {"index-url", "extra-index-url", "trusted-host", "timeout", "retries", "proxy"}
)

# As in the official images: pip beside the interpreter, no compiled standard library.
_LIKE_A_PYTHON_IMAGE: Final = """
set -e
python3 -m venv /tmp/venv
site=$(echo /usr/local/lib/python3.*)/site-packages
mkdir -p "$site"
mv /tmp/venv/lib/python3*/site-packages/pip* "$site"
rm -rf /tmp/venv
cat > /usr/local/bin/pip <<END
#!/usr/bin/python3
import sys
sys.path.insert(0, "$site")
from pip._internal.cli.main import main
sys.exit(main())
END
chmod 755 /usr/local/bin/pip
find / -xdev -name '*.pyc' -delete
"""


class BuildFailed(Exception):
    """buildah said no; with the end of its output."""


class Buildah:
    """buildah commands on the storage in ``directory``."""

    def __init__(self, program: Path, directory: Path) -> None:
        self._program = program
        self._directory = directory
        self._driver = "overlay"
        try:
            self("info")
        except BuildFailed:  # for example in a container, where overlays do not stack
            self._driver = "vfs"
        self("rm", "--all")  # what a run that was killed has left

    def __call__(self, *arguments: str) -> str:
        """One command; what it prints.

        Raises:
            BuildFailed: its status was not 0.
        """
        place = self._directory / self._driver
        where = f"--root={place / 'root'}", f"--runroot={place / 'run'}"
        done = subprocess.run(
            [str(self._program), f"--storage-driver={self._driver}", *where, *arguments],
            timeout=_TIMEOUT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
            raise BuildFailed(f"buildah {arguments[0]} failed ({done.returncode}):\n{tail}")
        return done.stdout.strip()

    def build(
        self,
        tag: str,
        context: Path,
        *options: str,
        arguments: Mapping[str, str],
        fresh: bool = False,
    ) -> None:
        """Build ``context`` and give the image a name; ``fresh``: with nothing kept from before."""
        # Kept steps cost a copy of everything each, where there is no overlay.
        keep = not fresh and self._driver == "overlay"
        self(
            "build",
            "--isolation=chroot",  # RUN needs no more, and it works wherever root is root
            "--format=docker",  # OCI's has no HEALTHCHECK
            "--pull=never",
            f"--layers={'true' if keep else 'false'}",
            *(["--no-cache"] if fresh else []),
            *(f"--build-arg={name}={value}" for name, value in arguments.items()),
            f"--tag={tag}",
            *options,
            str(context),
        )

    def inspect(self, image: str) -> dict[str, Any]:
        """The image's configuration, as Docker has it."""
        found = json.loads(self("inspect", "--type=image", image))
        return dict(found["Docker"])

    def has(self, image: str) -> bool:
        """Whether an image of that name is in the storage."""
        return bool(self("images", "--quiet", "--filter", f"reference={image}"))

    @contextmanager
    def tree(self, image: str) -> Iterator[Path]:
        """The image's files, in a container that is gone afterwards."""
        container = self("from", "--pull=never", image)
        try:
            yield Path(self("mount", container))
        finally:
            self("rm", container)

    def stand_in(self, name: str, debian: Path) -> None:
        """Make an image that can be taken for an official Python image: no such can be pulled."""
        container = self("from", "scratch")
        try:
            root = Path(self("mount", container))
            subprocess.run(["cp", "-a", f"{debian}/.", str(root)], check=True)
            _reach_the_index(root)
            shell = "--isolation=chroot", container, "--", "sh", "-c"
            self("run", *shell, _LIKE_A_PYTHON_IMAGE)
            paths = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            self("config", f"--env=PATH={paths}", "--cmd", '["python3"]', container)
            self("commit", "--quiet", container, name)
        finally:
            self("rm", container)


def _reach_the_index(root: Path) -> None:
    """Let pip in there find what pip finds here: index, certificates."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    lines = ["[global]", f"cert = {_CA}"]
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        option = name.rpartition(".")[2]
        if option in _PIP_OPTIONS:
            lines.append(f"{option} = {value.strip().strip(chr(39))}")
    (root / "etc/pip.conf").write_text("\n".join(lines) + "\n")
    (root / "etc/pip.conf").chmod(0o600)  # an index address may hold a password
    authorities = ssl.get_default_verify_paths().cafile
    if authorities is not None:
        shutil.copyfile(authorities, root / _CA.lstrip("/"))
