"""Certificates, keys and mechanisms that could never work are told before a broker is asked."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.kafka import credentials
from tests.conftest import unavailable
from tests.unit.making import make_settings

SECRET = "hunter2-hunter2"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate with its key, the key encrypted, and another key."""
    if shutil.which("openssl") is None:
        unavailable("openssl", "it is not installed")
    made = tmp_path_factory.mktemp("pem")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -keyout key -out cert -subj /CN=shop -days 2",
        f"rsa -in key -aes128 -passout pass:{SECRET} -out locked",
        "genrsa -out other 2048",
    ):
        subprocess.run(["openssl", *command.split()], cwd=made, check=True, capture_output=True)
    (made / "junk").write_text("a-token-or-a-password")
    (made / "binary").write_bytes(b"\xff\xfe\x00")
    (made / "empty").touch()
    return made


def tls(pem: Path, **files: str) -> dict[str, Any]:
    return {"security_protocol": "SSL", **{name: pem / file for name, file in files.items()}}


def refused(values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        credentials.check(make_settings(**values))
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_right_passes(pem: Path) -> None:
    right = tls(pem, ssl_cafile="cert", ssl_certfile="cert", ssl_keyfile="key")
    locked = tls(pem, ssl_certfile="cert", ssl_keyfile="locked") | {"ssl_password": SECRET}
    for values in ({}, right, locked):
        credentials.check(make_settings(**values))


@pytest.mark.parametrize("file", ["junk", "empty", "binary", "key"])
def test_authorities_that_are_none(pem: Path, file: str) -> None:
    assert refused(tls(pem, ssl_cafile=file)) == (
        f"PENSTOCK_SSL_CAFILE={pem / file}: it holds no certificates in PEM"
    )


@pytest.mark.parametrize(
    ("certificate", "key", "password"),
    [
        ("junk", "key", None),
        ("cert", "junk", None),
        ("cert", "other", None),
        ("cert", "locked", None),  # and nobody is asked for a password
        ("cert", "locked", "wrong-hunter"),
    ],
)
def test_a_key_that_is_not_the_certificate_s(
    pem: Path, certificate: str, key: str, password: str | None
) -> None:
    values = tls(pem, ssl_certfile=certificate, ssl_keyfile=key) | {"ssl_password": password}
    said = refused(values)
    assert f"PENSTOCK_SSL_KEYFILE={pem / key}: they are no certificate and its key" in said
    assert "wrong-hunter" not in said


@pytest.mark.parametrize(("file", "problem"), [("empty", "is empty"), ("binary", "is not text")])
def test_a_password_file_that_holds_none(pem: Path, file: str, problem: str) -> None:
    values = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_username": "me",
        "sasl_password_file": pem / file,
    }
    assert refused(values).endswith(problem)


def test_a_mechanism_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"security_protocol": "SASL_SSL", "sasl_mechanism": "AWS_MSK_IAM"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "needs the package botocore" in refused(values)
    kerberos = {**values, "sasl_mechanism": "GSSAPI"}
    assert "needs the package gssapi" in refused(kerberos)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    credentials.check(make_settings(**values))
    values["security_protocol"] = "SASL_PLAINTEXT"
    assert "needs PENSTOCK_SECURITY_PROTOCOL=SASL_SSL" in refused(values)
