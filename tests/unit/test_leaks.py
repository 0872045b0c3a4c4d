"""The search for secrets finds them: a search that never finds anything proves nothing."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from devtools.leaks import LeakError, files_below, leaks, secrets_of
from devtools.service import TOKEN, Service

SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "content",
    [
        SECRET.encode(),
        b"SaslAuthenticateRequest(auth_bytes=b'\\x00shop\\x00hunter2-hunter2')",
        b'{"token": "' + base64.b64encode(SECRET.encode()) + b'"}',
        base64.b64encode(SECRET.encode() + b" and more"),
        SECRET.encode().hex().encode(),
    ],
)
def test_a_secret_is_found(content: bytes) -> None:
    assert leaks([SECRET], [("the log", b"x" * 99 + content)]) == ["the log has hun… in it"]


def test_a_secret_is_found_as_json_writes_it() -> None:
    assert leaks(["größtes-Geheimnis"], [("x", b'{"event": "gr\\u00f6\\u00dftes-Geheimnis"}')])


def test_what_is_no_secret_is_not() -> None:
    assert leaks([SECRET, SECRET], [("the log", b"hunter2"), ("the journal", b"")]) == []
    with pytest.raises(ValueError, match="too short"):
        leaks(["short"], [])


def test_the_secrets_are_those_of_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\n")
    env = {
        "PENSTOCK_SASL_PASSWORD_FILE": str(file),
        "PENSTOCK_CONTROL_TOKEN": "a-control-token",
        "PENSTOCK_SSL_PASSWORD": "a-key-password",
        "PENSTOCK_SSL_KEYFILE": str(file),
        "PENSTOCK_GROUP_ID": "not-a-secret",
    }
    assert set(secrets_of(env)) == {SECRET, "a-control-token", "a-key-password"}


def test_the_file_that_keeps_the_token_is_not_searched(tmp_path: Path) -> None:
    for name in ("control-token", "journal.jsonl"):
        (tmp_path / name).write_text(SECRET)
    assert list(files_below(tmp_path)) == [(str(tmp_path / "journal.jsonl"), SECRET.encode())]


@pytest.mark.parametrize("place", ["service.log", "termination-log", "state/journal.jsonl"])
def test_a_service_that_leaked_fails_its_test(tmp_path: Path, place: str) -> None:
    service = Service("no.such.module:app", tmp_path, bootstrap_servers="127.0.0.1:1")
    service.start().wait()
    with (tmp_path / place).open("a") as file:
        file.write(TOKEN)
    with pytest.raises(LeakError, match=f"{place} has tes… in it"):
        service.close()
