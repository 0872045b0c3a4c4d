"""The images that the tests look at and run: built once for each state of the sources."""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from devtools import rootfs

from .buildah import Buildah, BuildFailed
from .tree import copy, listing

__all__ = ["BuildFailed", "Image", "Images", "blocks", "images", "two_builds"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_CACHE: Final = _ROOT / ".cache" / "image"
_KEPT: Final = 2  # states of the sources: a test session may still run on the one before
_STORAGE_LIMIT: Final = 3_000_000_000  # bytes of kept build steps, then all is made anew

_BASE: Final = "localhost/python-stand-in"
_NAME: Final = "localhost/penstock"
_EPOCH: Final = "1580601600"

#: What the example's own requirement is, in the image of docs/container.md that has some.
_REQUIREMENT: Final = "six==1.17.0"

#: The handler of the derived images. It says what it runs on, so that a test can see it.
HANDLER: Final = """
import importlib.util
from penstock import App, Record

app = App()
print("six:", importlib.util.find_spec("six") is not None)

@app.subscribe(group="derived")
def bill(record: Record) -> None:
    print("billed", record.value)
"""


@dataclass(frozen=True)
class Image:
    """An image's files, and its configuration as Docker has it."""

    root: Path
    config: dict[str, Any]


@dataclass(frozen=True)
class Images:
    """What was built."""

    service: Image
    derived: Image  #: docs/container.md's first Dockerfile
    derived_with_requirements: Image  #: its second one


def images(program: Path) -> Images:
    """Build with buildah, or find what was built of the same sources.

    Raises:
        TreeUnavailable: this machine cannot make the stand-in base.
        BuildFailed: the Dockerfile does not build.
    """
    debian = rootfs.debian_tree()
    built = _CACHE / _key(debian)
    if not built.exists():
        with _one_at_a_time():
            if not built.exists():
                _build(_Steps(program, debian), built)
                _forget_old(built)
    return _read(built)


def two_builds(program: Path) -> tuple[dict[str, str], dict[str, str]]:
    """`listing` of the service's image, and of one built anew as another clone would be.

    Slow, so it is done once for each Dockerfile and lock, not for each state of the sources.

    Raises:
        BuildFailed: see `images`.
    """
    service = images(program).service
    recipe = b"\0".join(p.read_bytes() for p in _sources() if "app" not in _parts(p))
    known = _CACHE / f"again-{hashlib.sha256(recipe).hexdigest()[:16]}.json"
    if not known.exists():
        with _one_at_a_time():
            if not known.exists():
                steps = _Steps(program, rootfs.debian_tree())
                first, second = listing(service.root), _listing_again(steps)
                if first != second:  # not kept: a source may have been edited meanwhile
                    return first, second
                known.write_text(json.dumps([first, second]))
    first, second = json.loads(known.read_text())
    return first, second


def blocks() -> list[str]:
    """The Dockerfiles in docs/container.md: what is written there is what is tested."""
    text = (_ROOT / "docs/container.md").read_text()
    return re.findall(r"^```dockerfile\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def _key(debian: Path) -> str:
    found = hashlib.sha256(debian.name.encode())
    for path in (*_sources(), *sorted(Path(__file__).parent.glob("*.py"))):
        found.update("/".join((*_parts(path), "")).encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    found.update(json.dumps(blocks()).encode())
    return found.hexdigest()[:16]


def _sources() -> list[Path]:
    """The Dockerfile and what .dockerignore lets through to it."""
    ignore = _ROOT / ".dockerignore"
    found = [_ROOT / "Dockerfile", ignore]
    for line in ignore.read_text().splitlines():
        if line.startswith("!"):
            path = _ROOT / line[1:]
            inside = path.rglob("*") if path.is_dir() else [path]
            found += (p for p in inside if p.is_file() and p.suffix != ".pyc")
    return sorted(found)


def _parts(path: Path) -> tuple[str, ...]:
    return path.relative_to(_ROOT).parts


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """pytest-xdist's workers come here at the same time: one builds, the others wait."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    _CACHE.chmod(0o700)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _scratch() -> Iterator[Path]:
    scratch = Path(tempfile.mkdtemp(prefix="making-", dir=_CACHE))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Steps:
    """buildah with the stand-in base in its storage, and what to call it with."""

    def __init__(self, program: Path, debian: Path) -> None:
        storage = _CACHE / "storage"
        self.buildah = Buildah(program, storage)
        if _size(storage) > _STORAGE_LIMIT:
            self.buildah("rmi", "--all", "--force")
        base = f"{_BASE}:{debian.name}"
        if not self.buildah.has(base):
            self.buildah.stand_in(base, debian)
        self.arguments = {"PYTHON_IMAGE": base}


def _build(steps: _Steps, built: Path) -> None:
    with _scratch() as scratch:
        made = scratch / "made"
        made.mkdir()
        name = f"{_NAME}:{_version()}"
        labels = {"REVISION": "0123abc", "CREATED": "2020-02-02T00:00:00Z"}
        steps.buildah.build(name, _ROOT, arguments=steps.arguments | labels)
        _export(steps.buildah, name, made / "service")

        context = scratch / "context"
        context.mkdir()
        (context / "orders.py").write_text(HANDLER)
        (context / "requirements.txt").write_text(_REQUIREMENT + "\n")
        for number, dockerfile in enumerate(blocks()[:2]):
            (context / "Dockerfile").write_text(dockerfile)
            derived = f"localhost/derived-{number}"
            steps.buildah.build(derived, context, arguments=steps.arguments)
            _export(steps.buildah, derived, made / f"derived-{number}")
        made.rename(built)


def _listing_again(steps: _Steps) -> dict[str, str]:
    """The files of a build from nothing, of sources that have other times and modes."""
    again = f"{_NAME}:again"
    with _scratch() as clone:
        for path in _sources():
            twin = clone / path.relative_to(_ROOT)
            twin.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.copyfile(path, twin)  # its time is now
            twin.chmod(0o600)
        steps.buildah.build(again, clone, arguments=steps.arguments, fresh=True)
    with steps.buildah.tree(again) as tree:
        found = listing(tree)
    steps.buildah("rmi", again)
    return found


def _export(buildah: Buildah, image: str, to: Path) -> None:
    to.mkdir()
    with buildah.tree(image) as tree:
        copy(tree, to / "root")
    (to / "config.json").write_text(json.dumps(buildah.inspect(image)["config"]))


def _read(built: Path) -> Images:
    def image(name: str) -> Image:
        return Image(built / name / "root", json.loads((built / name / "config.json").read_text()))

    return Images(image("service"), image("derived-0"), image("derived-1"))


def _forget_old(built: Path) -> None:
    """Keep the newest states only."""
    states = sorted(
        (p for p in _CACHE.iterdir() if re.fullmatch(r"[0-9a-f]{16}", p.name)),
        key=lambda p: p.stat().st_mtime,
    )
    assert built in states
    for state in states[:-_KEPT]:
        shutil.rmtree(state)


def _size(directory: Path) -> int:
    return sum(p.lstat().st_size for p in directory.rglob("*"))


def _version() -> str:
    text = (_ROOT / "app/penstock/__init__.py").read_text()
    found = re.search(r'^__version__ = "(.*)"', text, re.MULTILINE)
    assert found is not None
    return found[1]
