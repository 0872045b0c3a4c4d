"""What cannot work: one sentence and 78 from `penstock check`.

A worker of `penstock run` goes the same way (``plans(load_app(target))``);
``tests/scenarios/test_bad_start.py`` compares what both say with real processes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from penstock import cli

HEAD = """
import math, re, ssl
from penstock import *
SETTINGS = {}
"""
TAIL = """
app = App(bootstrap_servers="127.0.0.1:1", **SETTINGS)
ARGUMENTS = {"group": "g", **ARGUMENTS} if "ARGUMENTS" in globals() else {"group": "g"}
@app.subscribe("orders", **ARGUMENTS)
def handle(record: Record): ...
"""

SASL = """
SETTINGS = dict(security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", sasl_username="me",
                sasl_password_file="/no/such/file")
"""

#: name: (code, environment, the sentence or its beginning)
BAD: dict[str, tuple[str, dict[str, str], str]] = {
    "concurrency": ("ARGUMENTS = {'concurrency': 2000}", {}, "subscribe(concurrency=2000): a"),
    "concurrency of the environment": (
        "",
        {"CONCURRENCY": "2000"},
        "PENSTOCK_CONCURRENCY=2000: input should be less than or equal to 1024",
    ),
    "retry": ("ARGUMENTS = {'retry': 5}", {}, "subscribe(retry=5): write retry=Retry(attempts=5)"),
    "then": (
        "ARGUMENTS = {'then': 'orders.dead'}",
        {},
        "subscribe(then='orders.dead'): write then=dead_letter(\"orders.dead\")",
    ),
    "then, not called": ("ARGUMENTS = {'then': skip}", {}, "subscribe(then=<function skip"),
    "breaker": ("Breaker(share=2)", {}, "Breaker(share=2): a number above 0"),
    "batch": ("Batch(count=0)", {}, "Batch(count=0): a whole number"),
    "misspelt option": (
        "",
        {"KAFKA_OPTIONS": '{"fetch_max_byts": 1}'},
        "PENSTOCK_KAFKA_OPTIONS: fetch_max_byts is no option",
    ),
    "ignored option": (
        "",
        {"KAFKA_OPTIONS": '{"max_poll_records": 1}'},
        "PENSTOCK_KAFKA_OPTIONS: max_poll_records cannot be set here: set PENSTOCK_MAX_POLL_",
    ),
    "half an option": (
        "",
        {"KAFKA_OPTIONS": '{"security_protocol": "SSL"}'},
        "PENSTOCK_KAFKA_OPTIONS: security_protocol cannot be set here: set PENSTOCK_SECURITY_",
    ),
    "no JSON": ("", {"KAFKA_OPTIONS": "{"}, "PENSTOCK_KAFKA_OPTIONS: "),
    "a context without TLS": (
        "SETTINGS = {'kafka_options': {'ssl_context': ssl.create_default_context()}}",
        {},
        "PENSTOCK_KAFKA_OPTIONS has ssl_context, but PENSTOCK_SECURITY_PROTOCOL is PLAINTEXT",
    ),
    "a flag": ("SETTINGS = {'workers': True}", {}, "PENSTOCK_WORKERS=True: not true or false"),
    "an object": ("SETTINGS = {'drain_timeout': object()}", {}, "PENSTOCK_DRAIN_TIMEOUT: input"),
    "nan": ("SETTINGS = {'drain_timeout': math.nan}", {}, "PENSTOCK_DRAIN_TIMEOUT=nan: input"),
    "topic": ("", {"TOPICS": "or ders"}, "PENSTOCK_TOPICS=or ders: 'or ders' is no topic's name"),
    "token": ("SETTINGS = {'control_token': 'a b c d e'}", {}, "PENSTOCK_CONTROL_TOKEN: a control"),
    "unreadable token": (
        "SETTINGS = {'control_token_file': '/no/such/file'}",
        {},
        "PENSTOCK_CONTROL_TOKEN_FILE=/no/such/file: cannot be read",
    ),
    "no certificate": (
        "SETTINGS = {'security_protocol': 'SSL', 'ssl_cafile': '/dev/null'}",
        {},
        "PENSTOCK_SSL_CAFILE=/dev/null: it holds no certificates in PEM",
    ),
    "unreadable password": (
        SASL,
        {},
        "PENSTOCK_SASL_PASSWORD_FILE=/no/such/file: no such file",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("code", "env", "sentence"), BAD.values(), ids=BAD)
def test_one_sentence_and_78(
    code: str,
    env: dict[str, str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(f"PENSTOCK_{name}", value)
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "refused.py").write_text(f"{HEAD}\n{code}\n{TAIL}")
    try:
        assert cli.main(["check", f"{tmp_path / 'refused.py'}:app"]) == 78
    finally:
        sys.modules.pop("refused", None)
    said = capsys.readouterr().err
    assert said.startswith(f"penstock: {sentence}")
    assert said.count("\n") == 1, "one sentence"
