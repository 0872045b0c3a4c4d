"""Where state is kept: found again by the same application, and by no other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock.paths import default_runtime_dir, default_state_dir
from penstock.private_dir import open_private
from penstock.supervisor.host import Host

ENV = {"TMPDIR": "/tmp/x"}
SHOP = Path("/srv/shop")


def where(target: str = "shop.orders:app", port: int = 8080, directory: Path = SHOP) -> Path:
    return default_state_dir(ENV, port, target, directory)


def test_the_same_application_finds_its_own_again() -> None:
    assert where() == where()
    assert where().parent == Path("/tmp/x")
    assert where().name.startswith(f"penstock-{os.getuid()}-8080-shop.orders-")
    by_file = where("/srv/shop/orders.py:app")
    assert by_file == where("orders.py:app") == where("../shop/orders.py:app")
    assert by_file == where("shop/orders.py:app", directory=Path("/srv"))


def test_others_have_others() -> None:
    others = [
        where(),
        where("shop.refunds:app"),
        where("shop.orders:other"),
        where("shop:orders.app"),
        where(port=8081),
        where(directory=Path("/srv/shop2")),
        where("a/orders.py:app"),
        where("b/orders.py:app"),
    ]
    assert len(set(others)) == len(others)
    assert default_runtime_dir(ENV, 8080) not in others


@pytest.mark.parametrize("name", ["../../etc/p.py:app", "größe.py:app", "a/b c.py:x", "\udcff:a"])
def test_a_target_of_any_name_makes_one_directory(name: str) -> None:
    assert where(name).parent == Path("/tmp/x")
    assert where(name).name.isascii()
    assert len(where("x" * 300 + ":app").name) < 100


def refused(directory: Path, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        Host().journal(directory, guarded=True)
    assert "set PENSTOCK_STATE_DIR to" in str(caught.value)


def test_a_state_directory_that_others_control_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "planted"
    planted.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(planted)
    (tmp_path / "file").touch()
    refused(tmp_path / "link", "symbolic link")
    refused(tmp_path / "file", "not a directory")
    planted.chmod(0o777)
    refused(planted, "writable by others")
    planted.chmod(0o700)
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    refused(planted, "owned by uid")


def test_one_that_nobody_else_controls_is_used(tmp_path: Path) -> None:
    with Host().journal(tmp_path / "ours", guarded=True) as journal:
        assert journal.degraded is None
    assert (tmp_path / "ours").stat().st_mode & 0o777 == 0o700
    with Host().journal(Path("/proc/penstock"), guarded=True) as journal:
        assert journal.degraded is not None, "what cannot be made costs a warning"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_directory_that_is_really_another_user_s(tmp_path: Path) -> None:
    os.chown(tmp_path, 4711, 4711)
    with pytest.raises(ConfigError, match="owned by uid 4711, not by 0"):
        open_private(tmp_path, "state directory", "PENSTOCK_STATE_DIR")


def test_the_client_s_modules_stay_light() -> None:
    program = "import sys, penstock.paths; print('hashlib' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout == "False\n"
