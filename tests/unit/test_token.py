"""The control token: where it comes from, and who must not be able to plant it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr

from penstock import paths
from penstock.errors import ConfigError
from penstock.http.token import read_token, resolve_token
from penstock.settings import Settings


def settings(**values: object) -> Settings:
    return Settings.model_validate({"bootstrap_servers": "kafka:9092", **values})


@pytest.fixture(autouse=True)
def _no_penstock_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)


def test_the_setting_wins_and_is_stripped(tmp_path: Path) -> None:
    chosen = settings(control_token=SecretStr("from-setting\n"), runtime_dir=tmp_path / "run")
    assert resolve_token(chosen) == "from-setting"
    assert not (tmp_path / "run").exists()


def test_a_setting_of_blanks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"PENSTOCK_CONTROL_TOKEN: .* is empty"):
        resolve_token(settings(control_token=SecretStr("          ")))


def test_the_file_is_stripped(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("  from-file\n")
    assert resolve_token(settings(control_token_file=file)) == "from-file"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"short\n", "has 5 characters; 8 are the least"),
        (b"two words\n", "printable ASCII"),
        ("schlüssel-lang".encode(), "printable ASCII"),
        (b"\xff\xfe\xff\xfe\xff\xfe\xff\xfe", "it is not text"),
    ],
)
def test_an_unusable_file_is_refused_by_name(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint) as caught:
        resolve_token(settings(control_token_file=file))
    assert f"PENSTOCK_CONTROL_TOKEN_FILE={file}" in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        resolve_token(settings(control_token_file=tmp_path / "none"))


def test_a_generated_token_is_private_and_found_by_clients(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "run"
    old = os.umask(0)  # the modes must not depend on it
    try:
        token = resolve_token(settings(runtime_dir=directory))
    finally:
        os.umask(old)
    file = directory / "control-token"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(token) >= 43  # 32 bytes in base64
    assert [f.name for f in directory.iterdir()] == ["control-token"]  # no temporary file is left
    assert read_token({"PENSTOCK_RUNTIME_DIR": str(directory)}, 8080) == token


def test_each_start_makes_a_new_token(tmp_path: Path) -> None:
    first = resolve_token(settings(runtime_dir=tmp_path / "run"))
    second = resolve_token(settings(runtime_dir=tmp_path / "run"))
    assert first != second
    assert (tmp_path / "run" / "control-token").read_text().strip() == second


def test_a_token_file_that_is_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    target = tmp_path / "victim"
    target.write_text("untouched")
    (directory / "control-token").symlink_to(target)
    token = resolve_token(settings(runtime_dir=directory))
    assert target.read_text() == "untouched"
    assert (directory / "control-token").read_text().strip() == token


def test_without_a_runtime_dir_service_and_client_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    token = resolve_token(settings(http_port=9123))
    assert read_token(os.environ, 9123) == token
    assert read_token(os.environ, 9124) is None


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_directory_that_others_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(ConfigError, match="writable by others") as caught:
        resolve_token(settings(runtime_dir=directory))
    assert "PENSTOCK_RUNTIME_DIR" in str(caught.value)
    assert not list(directory.iterdir())


def test_a_linked_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="symbolic link"):
        resolve_token(settings(runtime_dir=tmp_path / "run"))
    assert not list((tmp_path / "real").iterdir())


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(ConfigError, match="not a directory"):
        resolve_token(settings(runtime_dir=tmp_path / "run"))


def test_a_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    stranger = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: stranger)  # chown needs root; the check does not
    with pytest.raises(ConfigError, match=f"owned by uid {stranger - 1}, not by {stranger}"):
        resolve_token(settings(runtime_dir=tmp_path / "run"))


def test_a_directory_that_cannot_be_made_keeps_the_token_in_memory() -> None:
    with structlog.testing.capture_logs() as logs:
        token = resolve_token(settings(runtime_dir=Path("/proc/penstock")))  # nobody may
    assert len(token) >= 43
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("warning", "control_token_not_written")
    ]
    assert token not in str(logs)


def test_the_client_prefers_the_token_then_its_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from-file\n")
    (tmp_path / paths.TOKEN_FILE).write_text("generated\n")
    env = {
        "PENSTOCK_CONTROL_TOKEN": "from-setting\n",
        "PENSTOCK_CONTROL_TOKEN_FILE": str(tmp_path / "file"),
        "PENSTOCK_RUNTIME_DIR": str(tmp_path),
    }
    assert read_token(env, 8080) == "from-setting"
    del env["PENSTOCK_CONTROL_TOKEN"]
    assert read_token(env, 8080) == "from-file"
    del env["PENSTOCK_CONTROL_TOKEN_FILE"]
    assert read_token(env, 8080) == "generated"
    (tmp_path / paths.TOKEN_FILE).unlink()
    assert read_token(env, 8080) is None


def test_the_settings_and_the_client_agree_on_the_directory(tmp_path: Path) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert settings(http_port=7).resolved_runtime_dir(env) == paths.runtime_dir(env, 7)
    own = {"PENSTOCK_RUNTIME_DIR": str(tmp_path / "own")}
    assert paths.runtime_dir(own, 7) == tmp_path / "own"


def test_reading_a_token_adds_nothing_heavy() -> None:
    """Whatever ``import penstock`` costs, the client's modules add no pydantic to it."""
    program = (
        "import sys, penstock; before = set(sys.modules)\n"
        "import penstock.client, penstock.http.token, penstock.paths\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new & {'pydantic', 'fastapi', 'uvicorn', 'structlog', 'starlette'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.strip() == "[]"
