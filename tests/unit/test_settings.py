from __future__ import annotations

import json
import os
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from penstock import settings as settings_module
from penstock.errors import ConfigError
from penstock.settings import Settings, effective, env_name, load, unknown_names
from penstock.settings_wire import from_wire, to_wire

SECRET = "hunter2-hunter2"
NAMES = sorted(env_name(field) for field in Settings.model_fields)


def loaded(monkeypatch: pytest.MonkeyPatch, env: dict[str, str], **code: Any) -> Settings:
    env = {"PENSTOCK_BOOTSTRAP_SERVERS": "broker:9092", **env}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return load(code, os.environ)


def refused(monkeypatch: pytest.MonkeyPatch, env: dict[str, str], **code: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(monkeypatch, env, **code)
    return str(caught.value).split("\n")


def env_of(**values: str) -> dict[str, str]:
    return {env_name(name): value for name, value in values.items()}


def test_the_defaults_of_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch, {})
    assert settings.bootstrap_servers == ("broker:9092",)
    assert (settings.drain_timeout, settings.workers, settings.auto_offset_reset) == (
        25.0, 1, "earliest",
    )  # fmt: skip
    assert (settings.http_host, settings.http_port) == ("0.0.0.0", 8080)


def test_the_environment_wins_over_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch, env_of(drain_timeout="50"), drain_timeout=60, workers=3)
    assert (settings.drain_timeout, settings.workers) == (50.0, 3)
    monkeypatch.setenv("PENSTOCK_DRAIN_TIMEOUT", "")  # empty is unset
    assert loaded(monkeypatch, {}, drain_timeout=60).drain_timeout == 60.0


def test_lists_and_levels_as_people_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(
        monkeypatch,
        env_of(
            bootstrap_servers=" a:1, [::1]:2 ,",
            topics="orders, refunds",
            log_level="debug",
            kafka_options='{"fetch_max_wait_ms": 9, "api_version": [3, 0]}',
            quit_urls="http://localhost:15020/quitquitquit,http://127.0.0.1:4191/shutdown",
        ),
    )
    assert settings.bootstrap_servers == ("a:1", "[::1]:2")
    assert settings.topics == ("orders", "refunds")
    assert settings.log_level == "DEBUG"
    assert settings.kafka_options == {"fetch_max_wait_ms": 9, "api_version": [3, 0]}
    assert len(settings.quit_urls) == 2


#: what is set, and a piece of the sentence; the sentence always names the setting.
WRONG = [
    ({"bootstrap_servers": "broker"}, "BOOTSTRAP_SERVERS", "not host:port"),
    ({"bootstrap_servers": "broker:0"}, "BOOTSTRAP_SERVERS", "not host:port"),
    ({"bootstrap_servers": "a:1,:9"}, "BOOTSTRAP_SERVERS", "not host:port"),
    ({"bootstrap_servers": "a b:1"}, "BOOTSTRAP_SERVERS", "not host:port"),
    ({"control_token": "short"}, "CONTROL_TOKEN", "at least 8 characters"),
    ({"bootstrap_servers": "a:65536"}, "BOOTSTRAP_SERVERS", "not host:port"),
    ({"bootstrap_servers": ","}, "BOOTSTRAP_SERVERS", ""),
    ({"drain_timeout": "0"}, "DRAIN_TIMEOUT", "greater than 0"),
    ({"drain_timeout": "soon"}, "DRAIN_TIMEOUT", "valid number"),
    ({"drain_timeout": "inf"}, "DRAIN_TIMEOUT", ""),
    ({"drain_timeout": "nan"}, "DRAIN_TIMEOUT", ""),
    ({"workers": "0"}, "WORKERS", ""),
    ({"workers": "1.5"}, "WORKERS", "integer"),
    ({"concurrency": "0"}, "CONCURRENCY", ""),
    ({"http_port": "65536"}, "HTTP_PORT", ""),
    ({"log_level": "LOUD"}, "LOG_LEVEL", ""),
    ({"log_format": "xml"}, "LOG_FORMAT", ""),
    ({"auto_offset_reset": "none"}, "AUTO_OFFSET_RESET", ""),
    ({"instance_id": "a b"}, "INSTANCE_ID", ""),
    ({"instance_id": "x" * 201}, "INSTANCE_ID", ""),
    ({"control_token": "short"}, "CONTROL_TOKEN", ""),
    ({"quit_urls": "http://example.com/quit"}, "QUIT_URLS", "loopback only"),
    ({"quit_urls": "http://localhost.example.com:80/"}, "QUIT_URLS", "loopback only"),
    ({"kafka_options": "{"}, "KAFKA_OPTIONS", "not JSON"),
    ({"kafka_options": "[1]"}, "KAFKA_OPTIONS", "a JSON object"),
    (
        {"kafka_options": '{"group_id": "x"}'},
        "KAFKA_OPTIONS",
        "set PENSTOCK_GROUP_ID",
    ),
    ({"session_timeout": "8"}, "SESSION_TIMEOUT", "HEARTBEAT_INTERVAL"),
    ({"heartbeat_interval": "16"}, "HEARTBEAT_INTERVAL", "at most a third"),
    ({"revoke_timeout": "60"}, "REVOKE_TIMEOUT", "POLL_STALL_TIMEOUT"),
    ({"max_poll_interval": "60"}, "MAX_POLL_INTERVAL", "never reached"),
    ({"max_poll_interval": "20"}, "MAX_POLL_INTERVAL", "REVOKE_TIMEOUT"),
    ({"retry_first": "31"}, "RETRY_FIRST", "RETRY_LIMIT"),
    ({"stable_identity": "true"}, "STABLE_IDENTITY", "INSTANCE_ID"),
    ({"control_token": SECRET, "control_token_file": "/x"}, "CONTROL_TOKEN", "not both"),
    ({"security_protocol": "SASL_SSL"}, "SECURITY_PROTOCOL", "SASL_MECHANISM"),
    ({"sasl_mechanism": "PLAIN"}, "SECURITY_PROTOCOL", "SASL_SSL or SASL_PLAINTEXT"),
    ({"sasl_username": "me"}, "SECURITY_PROTOCOL", ""),
    ({"sasl_password": SECRET}, "SECURITY_PROTOCOL", ""),
    ({"ssl_cafile": "/dev/null"}, "SECURITY_PROTOCOL", "use SSL or SASL_SSL"),
    ({"security_protocol": "SSL", "ssl_cafile": "/no/ca"}, "SSL_CAFILE", "no such file"),
    ({"security_protocol": "SSL", "ssl_certfile": "/dev/null"}, "SSL_KEYFILE", "go together"),
    ({"security_protocol": "SSL", "ssl_keyfile": "/dev/null"}, "SSL_CERTFILE", "go together"),
]


@pytest.mark.parametrize(("values", "name", "piece"), WRONG)
def test_what_is_wrong_is_named(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], name: str, piece: str
) -> None:
    sentences = refused(monkeypatch, env_of(**values))
    assert any(f"PENSTOCK_{name}" in s and piece in s for s in sentences), sentences
    for sentence in sentences:
        assert "PENSTOCK_" in sentence
        assert SECRET not in sentence
        assert "pydantic" not in sentence


SASL = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512"}


@pytest.mark.parametrize(
    ("values", "pieces"),
    [
        ({}, ["SASL_USERNAME", "SASL_PASSWORD"]),
        ({"sasl_username": "me"}, ["SASL_PASSWORD"]),
        ({"sasl_password": SECRET}, ["SASL_USERNAME"]),
        ({"sasl_username": "me", "sasl_password": SECRET, "sasl_password_file": "/dev/null"},
         ["not both"]),
        ({"sasl_username": "me", "sasl_password_file": "/no/file"},
         ["SASL_PASSWORD_FILE=/no/file"]),
    ],
)  # fmt: skip
def test_sasl_needs_both(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], pieces: list[str]
) -> None:
    sentences = refused(monkeypatch, env_of(**SASL, **values))
    assert len(sentences) == len(pieces)
    assert all(piece in sentence for piece, sentence in zip(pieces, sentences, strict=True))
    assert SECRET not in "".join(sentences)


@pytest.mark.parametrize("mechanism", ["GSSAPI", "AWS_MSK_IAM"])
def test_some_mechanisms_need_no_password(monkeypatch: pytest.MonkeyPatch, mechanism: str) -> None:
    settings = loaded(monkeypatch, env_of(security_protocol="SASL_SSL", sasl_mechanism=mechanism))
    assert settings.sasl_secret() is None


def test_the_password_s_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(SECRET + "\r\n")
    env = env_of(**SASL, sasl_username="me", sasl_password_file=str(path))
    assert loaded(monkeypatch, env).sasl_secret() == SECRET


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = refused(
        monkeypatch, {"PENSTOCK_WORKER": "2", **env_of(http_port="x")}, drain_timout=3
    )
    assert [s.partition(" ")[0].partition("=")[0] for s in sentences] == [
        "PENSTOCK_WORKER", "App(drain_timout", "PENSTOCK_HTTP_PORT",
    ]  # fmt: skip
    assert "did you mean PENSTOCK_WORKERS?" in sentences[0]
    assert "did you mean drain_timeout?" in sentences[1]


def test_what_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_BOOTSTRAP_SERVERS", raising=False)
    with pytest.raises(ConfigError, match=r"^PENSTOCK_BOOTSTRAP_SERVERS is not set"):
        load({}, {})


@pytest.mark.parametrize(
    "values",
    [
        {"control_token": "p455w"},
        {"control_token": SECRET, "control_token_file": "/x"},
        {"sasl_password": SECRET, "workers": "none"},
        {"ssl_password": SECRET, "workers": "none"},
        {"kafka_options": f'{{"sasl_jaas_config": "{SECRET}", "group_id": "x"}}'},
        {"kafka_options": f'{{"password": "{SECRET}'},
        {"kafka_options": f'"{SECRET}"'},
    ],
)
def test_a_secret_is_in_no_error(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    text = "\n".join(refused(monkeypatch, env_of(**values)))
    assert SECRET not in text
    assert "p455w" not in text


def test_secrets_are_masked_where_settings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(
        monkeypatch, env_of(**SASL, sasl_username="me", sasl_password=SECRET, workers="2"),
        drain_timeout=60, control_token=SECRET,
    )  # fmt: skip
    rows = effective(settings, {"drain_timeout": 60, "control_token": SECRET})
    assert [name for name, _, _ in rows] == [env_name(f) for f in Settings.model_fields]
    shown = {name: (value, source) for name, value, source in rows}
    assert shown["PENSTOCK_SASL_PASSWORD"] == ("********", "environment")
    assert shown["PENSTOCK_CONTROL_TOKEN"] == ("********", "code")
    assert shown["PENSTOCK_DRAIN_TIMEOUT"] == ("60", "code")
    assert shown["PENSTOCK_WORKERS"] == ("2", "environment")
    assert shown["PENSTOCK_HTTP_PORT"] == ("8080", "default")
    assert shown["PENSTOCK_GROUP_ID"] == ("-", "default")
    assert SECRET not in repr(rows) + repr(settings)


SERVICE_LINKS = [
    "PENSTOCK_SERVICE_HOST",
    "PENSTOCK_SERVICE_PORT",
    "PENSTOCK_SERVICE_PORT_HTTP",
    "PENSTOCK_PORT",
    "PENSTOCK_PORT_8080_TCP",
    "PENSTOCK_PORT_8080_TCP_ADDR",
    "PENSTOCK_PORT_8080_TCP_PORT",
    "PENSTOCK_PORT_8080_TCP_PROTO",
    "PENSTOCK_PORT_53_UDP_ADDR",
    "PENSTOCK_METRICS_SERVICE_HOST",
    "PENSTOCK_METRICS_SERVICE_PORT_HTTP",
    "PENSTOCK_METRICS_PORT_9090_TCP_PROTO",
]


@pytest.mark.parametrize("name", SERVICE_LINKS)
def test_a_neighbour_s_service_links_are_no_mistake(name: str) -> None:
    assert unknown_names([name, "PATH"]) == []


def test_no_setting_looks_like_a_service_link_but_the_port_itself() -> None:
    taken = [name for name in NAMES if settings_module._SERVICE_LINK.fullmatch(name)]
    assert taken == ["PENSTOCK_HTTP_PORT"]  # known by name first; a test below sets it


def test_the_port_is_still_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded(monkeypatch, env_of(http_port="9000")).http_port == 9000


@given(st.sampled_from([n for n in NAMES if not n.endswith("_PORT")]), st.data())
def test_a_slip_of_the_finger_is_told(name: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(len("PENSTOCK_"), len(name) - 1))
    slip = name[:at] + name[at + 1 :]
    if slip in NAMES:
        return
    [sentence] = unknown_names([slip])
    assert sentence.startswith(f"{slip} is not a setting; did you mean PENSTOCK_")


def test_known_names_and_others_are_left_alone() -> None:
    assert unknown_names([*NAMES, "PATH", "KAFKA_PENSTOCK_X", "PENSTOCKS_X"]) == []
    [sentence] = unknown_names(["PENSTOCK_QQQQQQQQ"])
    assert "`penstock check` lists them all" in sentence


def test_where_things_live(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = loaded(monkeypatch, env_of(http_port="9"))
    here = settings.resolved_runtime_dir({"TMPDIR": str(tmp_path)})
    assert here == tmp_path / f"penstock-{os.getuid()}-9"
    assert settings.keeps_state_in_public
    state = settings.resolved_state_dir("shop:app", tmp_path, {"TMPDIR": str(tmp_path)})
    assert state.parent == tmp_path
    assert state.name.startswith(f"{here.name}-shop-")
    settings = loaded(monkeypatch, env_of(runtime_dir="/run/p"))
    assert settings.resolved_state_dir("shop:app", tmp_path, {}) == Path("/run/p")
    settings = loaded(monkeypatch, env_of(runtime_dir="/run/p", state_dir="/var/p"))
    assert settings.resolved_runtime_dir({}) == Path("/run/p")
    assert settings.resolved_state_dir("shop:app", tmp_path, {}) == Path("/var/p")
    assert not settings.keeps_state_in_public


# -- from the worker that imported the application to the supervisor --------------------


def sent(settings: Settings) -> Settings:
    return from_wire(json.loads(json.dumps(to_wire(settings))))


class Mode(StrEnum):
    LATEST = "latest"


def test_settings_arrive_as_they_were_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Secrets, paths, lists, enumerations, nothing: whatever code may hold."""
    monkeypatch.chdir(tmp_path)
    made = loaded(
        monkeypatch,
        env_of(**SASL, sasl_username="me"),
        control_token=SecretStr(SECRET),
        sasl_password=SECRET,
        state_dir=Path("here"),
        topics=["orders", "refunds"],
        quit_urls=("http://localhost:15020/quit",),
        auto_offset_reset=Mode.LATEST,
        instance_id=None,
        drain_timeout=Decimal("12.5"),
        kafka_options={"fetch_min_bytes": 9},
    )
    there = sent(made)
    assert there.control_token is not None
    assert there.control_token.get_secret_value() == SECRET
    assert there.sasl_secret() == SECRET
    assert there.state_dir == tmp_path / "here", "the supervisor may be elsewhere"
    assert there.topics == ("orders", "refunds")
    assert (there.auto_offset_reset, there.drain_timeout) == ("latest", 12.5)
    changed = {"state_dir": tmp_path / "here", "kafka_options": {}}  # of use to workers alone
    assert there == made.model_copy(update=changed)


def test_a_worker_of_the_next_version_is_understood() -> None:
    made = from_wire({"bootstrap_servers": ["a:1"], "of_the_next_version": SECRET})
    assert made.bootstrap_servers == ("a:1",)


def test_the_environment_is_not_read_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = loaded(monkeypatch, env_of(drain_timeout="50"))
    monkeypatch.setenv("PENSTOCK_DRAIN_TIMEOUT", "3")
    monkeypatch.setenv("PENSTOCK_LOG_LEVEL", "ERROR")
    assert (sent(made).drain_timeout, sent(made).log_level) == (50.0, "INFO")


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        [],
        "settings",
        {},
        {"of_the_next_version": SECRET},
        {"bootstrap_servers": ["a:1"], "control_token": SECRET, "sasl_password": [SECRET]},
    ],
)
def test_what_is_no_settings_is_told_without_its_values(garbage: object) -> None:
    with pytest.raises(ValueError, match=r"^no settings: ") as caught:
        from_wire(garbage)
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__, "the context shows what was given"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", True),
        ("http_port", True),
        ("drain_timeout", True),
        ("drain_timeout", object()),
        ("drain_timeout", float("nan")),
        ("concurrency", 2000),
        ("topics", 5),
        ("topics", [5]),
        ("topics", "or ders"),
        ("group_id", 5),
        ("group_id", " "),
        ("kafka_options", "fast"),
        ("kafka_options", {5: 5}),
        ("state_dir", 5),
        ("control_token", 12345678),
        ("control_token", b"\xff" * 9),
        ("log_level", None),
        ("stable_identity", "perhaps"),
        ("bootstrap_servers", None),
        ("bootstrap_servers", {"a:1": 5}),
        ("auto_offset_reset", ["latest"]),
    ],
)
def test_a_value_of_the_wrong_type_in_the_code(name: str, value: object) -> None:
    code = {"bootstrap_servers": "a:1", name: value}
    with pytest.raises(ConfigError, match=f"^{env_name(name)}.*: [^\n]+$"):
        load(code, {})
