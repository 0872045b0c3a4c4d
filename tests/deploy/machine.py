"""A machine with Penstock on it: a booted container with a root shell, and a broker beside it."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from devtools.nspawn import Container
from devtools.service import free_port
from tests.deploy.typed import LOOKING, Step, as_shown

_ROOT: Final = Path(__file__).resolve().parents[2]
_CACHE: Final = _ROOT / ".cache" / "rootfs"
_CHECKOUT: Final = "/root/penstock"
_SESSION: Final = "/root/session"

#: What of the checkout pip reads, and with it all that an installation reads.
_BUILT: Final = ("app", "requirements", "pyproject.toml", "README.md", "LICENSE")
_SHOWN: Final = (*_BUILT, "systemd")

#: What of an installation takes long, and ends up in /opt/penstock.
_SLOW: Final = re.compile(r"python3 -m venv |\S*/pip ")


def boot(tree: Path, wheels: Path) -> Container:
    """The machine, with the checkout to install from and a package index that needs no network."""
    bind = {f"{_CHECKOUT}/{name}": _ROOT / name for name in _SHOWN}
    return Container(tree, bind={**bind, "/wheels": wheels})


class Machine:
    """The booted machine, as somebody who follows the documentation meets it."""

    def __init__(self, container: Container, bootstrap: str) -> None:
        self.container = container
        self.bootstrap = bootstrap
        # The network is shared: the ports of the documentation may be taken.
        self._ports = {name: free_port() for name in (8080, 8081, 8082)}
        container.write("/etc/hosts", "127.0.0.1 localhost\n")  # debootstrap leaves that out
        container.write("/etc/pip.conf", "[global]\nno-index = true\nfind-links = /wheels\n")
        container.write(_SESSION, f"export PENSTOCK_HTTP_PORT={self._ports[8080]}\n")

    def localised(self, text: str) -> str:
        """What a page says of brokers and ports, as it is on this machine."""
        text = text.replace("localhost:9092", self.bootstrap)
        for documented, here in self._ports.items():
            text = re.sub(rf"\b{documented}\b", str(here), text)
        return text

    def type(self, command: str, *, check: bool = True) -> str:
        """Type a command in this machine's one root shell (exports last); returns what it shows."""
        script = (
            f". {_SESSION}\n{self.localised(command)}\nleft=$?\nexport -p >{_SESSION}\nexit $left"
        )
        return self.container.run("sh", "-c", script, cwd=_CHECKOUT, check=check, timeout=180.0)

    def take(self, step: Step) -> None:
        """Do what the page says at this point, and see what it says will be seen."""
        if step.path:
            self.container.write(step.path, self.localised(step.text))
        elif step.shows and LOOKING.match(step.command):
            self._look(step)
        else:
            output = self.type(step.command)
            assert as_shown(output, step.shows), f"{step.command!r} showed\n{output}"

    def _look(self, step: Step) -> None:
        """Look again until it is there: what was asked for takes its time."""
        seen = ""

        def there() -> bool:
            nonlocal seen
            seen = self.type(step.command, check=False)
            return as_shown(seen, step.shows)

        try:
            self.container.until(there, f"{step.shows} from {step.command!r}")
        except Exception as error:
            raise AssertionError(f"{step.command!r} showed\n{seen}\n{error}") from error

    def install(self, steps: list[Step]) -> None:
        """Type the installation. What pip made is kept until something that it reads changes."""
        typed = [step.command.encode() for step in steps if _SLOW.match(step.command)]
        key = hashlib.sha256(b"\0".join([*typed, *_built()]))
        kept = _CACHE / f"opt-penstock-{key.hexdigest()[:16]}.tar"
        opt = self.container.root / "opt"
        was_kept = kept.exists()
        if was_kept:
            _tar("-C", opt, "-xf", kept)
        for step in steps:
            if not (was_kept and _SLOW.match(step.command)):
                self.take(step)
        if not was_kept:
            for old in _CACHE.glob("opt-penstock-*.tar"):
                old.unlink(missing_ok=True)
            with tempfile.NamedTemporaryFile(dir=_CACHE, suffix=".new", delete=False) as new:
                _tar("-C", opt, "-cf", new.name, "penstock")
            Path(new.name).replace(kept)


def _tar(*arguments: str | Path) -> None:
    subprocess.run(["tar", *arguments], check=True, timeout=120)


def _built() -> Iterator[bytes]:
    for name in _BUILT:
        path = _ROOT / name
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                yield str(file.relative_to(_ROOT)).encode()
                yield file.read_bytes()
