"""Settings: names, defaults, limits and the combinations that cannot work.

Values come from the code (``App(workers=2)``), then from the environment (``PENSTOCK_*``,
which wins). Durations are in seconds. What is wrong is a :class:`~penstock.errors.ConfigError`
that names the setting and the remedy; all problems are told at once.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from penstock import kafka_options
from penstock.arguments import MOST_CONCURRENT, topic_problem
from penstock.error_text import text_of
from penstock.errors import ConfigError
from penstock.paths import default_runtime_dir, default_state_dir

PREFIX = "PENSTOCK_"

#: Kubernetes injects these for a Service whose name starts with "penstock" (service links):
#: they are not settings, and refusing them would stop a pod because of a neighbour's name.
_SERVICE_LINK = re.compile(
    r"PENSTOCK_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP)(?:_\w+)?)?)"
)

#: Options of the client that may hold credentials (``proxy_url``).
_SECRET_OPTION = re.compile("password|secret|token|credential|config|proxy", re.IGNORECASE)

#: Values that no error text may show; the options may hold credentials of their own.
_MAY_BE_SECRET = re.compile("PASSWORD|TOKEN|OPTIONS")

_LAST_PORT = 65_535

#: A frame of kafka-python's is at most 100 MB long, and a fetch may exceed its bound by a batch.
MOST_FETCHED = 64_000_000

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
CommaList = Annotated[tuple[str, ...], NoDecode]

_SASL_WITH_PASSWORD = frozenset({"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"})


class Settings(BaseModel):
    """Everything that can be set. Field ``x`` is ``PENSTOCK_X`` in the environment.

    Read by :func:`load` once, in the worker that imported the application, which sends them on.
    """

    # Built when first used: the supervisor needs only this one, a worker only the next.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    # -- Kafka -------------------------------------------------------------------------
    bootstrap_servers: Annotated[
        CommaList, Field(min_length=1, description="brokers to start from, host:port,…")
    ]
    group_id: str | None = Field(None, description="consumer group (or in the code)")
    topics: CommaList = Field((), description="topics; overrides the code's")
    client_id: str = Field("penstock", min_length=1, description="name shown to the brokers")
    auto_offset_reset: Literal["earliest", "latest"] = Field(
        "earliest", description="where a group without a committed offset starts"
    )
    instance_id: str | None = Field(
        None,
        max_length=200,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="base of group.instance.id (static membership, KIP-345)",
    )
    stable_identity: bool = Field(
        False, description="the instance id survives the pod (StatefulSet, systemd)"
    )
    session_timeout: Seconds = Field(45.0, description="broker gives a silent member up")
    heartbeat_interval: Seconds = Field(3.0, description="between heartbeats")
    max_poll_interval: Seconds = Field(300.0, description="longest pause between polls")
    metadata_refresh: Seconds = Field(30.0, description="look for new topics, partitions")
    kafka_options: dict[str, Any] = Field(
        default_factory=dict, description="further kafka-python consumer options, JSON"
    )

    # -- Kafka security ----------------------------------------------------------------
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how to talk to the brokers"
    )
    sasl_mechanism: (
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "AWS_MSK_IAM"] | None
    ) = Field(None, description="SASL mechanism")
    sasl_username: str | None = Field(None, description="SASL user")
    sasl_password: SecretStr | None = Field(None, description="SASL password")
    sasl_password_file: Path | None = Field(None, description="file holding the password")
    ssl_cafile: Path | None = Field(None, description="CA certificates, PEM")
    ssl_certfile: Path | None = Field(None, description="client certificate, PEM")
    ssl_keyfile: Path | None = Field(None, description="client key, PEM")
    ssl_password: SecretStr | None = Field(None, description="password of the client key")
    ssl_check_hostname: bool = Field(True, description="check the broker's host name")

    # -- Work --------------------------------------------------------------------------
    workers: int = Field(1, ge=1, le=256, description="worker processes of each subscription")
    concurrency: int | None = Field(
        None,
        ge=1,
        le=MOST_CONCURRENT,
        description="handlers at work in a worker; overrides the code's",
    )
    max_poll_records: int = Field(500, ge=1, le=100_000, description="records a fetch hands over")
    buffer_records: int = Field(
        8_000, ge=1, le=10_000_000, description="records waiting in a worker at most"
    )
    buffer_bytes: int = Field(
        64_000_000,
        ge=1,
        description="bytes waiting in a worker at most, 1000 for each record included",
    )
    fetch_bytes: int = Field(
        8_000_000,
        ge=1,
        le=MOST_FETCHED,
        description="bytes fetched for a worker and not yet handed over, at most, and one batch",
    )
    commit_interval: Seconds = Field(1.0, description="between asynchronous commits")
    retry_first: Seconds = Field(0.5, description="first delay after a handler raised")
    retry_limit: Seconds = Field(30.0, description="longest delay between tries")

    # -- Beginning ---------------------------------------------------------------------
    wait_urls: CommaList = Field((), description="sidecar URLs that must answer before consuming")
    wait_timeout: Seconds = Field(60.0, description="longest wait for them")

    # -- Ending ------------------------------------------------------------------------
    drain_timeout: Seconds = Field(25.0, description="budget from request to exit")
    revoke_timeout: Seconds = Field(
        20.0, description="longest wait for work on partitions that move away"
    )
    quit_urls: CommaList = Field((), description="sidecar URLs to POST after the drain")
    stop_when_caught_up: bool = Field(
        False, description="batch run: stop once all that was there at the start is done"
    )

    # -- Health ------------------------------------------------------------------------
    handler_timeout: Seconds = Field(300.0, description="liveness: longest single record")
    poll_stall_timeout: Seconds = Field(60.0, description="liveness: longest silent poll loop")
    memory_high: float = Field(
        0.9,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="share of the memory limit at which the largest worker is replaced; 0: never",
    )
    memory_interval: Seconds = Field(
        180.0, description="shortest time between two such replacements; a younger worker is kept"
    )

    # -- HTTP and control --------------------------------------------------------------
    http_host: str = Field("0.0.0.0", description="address of the listener")
    http_port: int = Field(8080, ge=0, le=_LAST_PORT, description="port of the listener")
    control_token: SecretStr | None = Field(None, min_length=8, description="for POST requests")
    control_token_file: Path | None = Field(None, description="file holding the token")
    runtime_dir: Path | None = Field(None, description="generated token; made mode 0700")

    # -- Records of the run ------------------------------------------------------------
    state_dir: Path | None = Field(None, description="journal of exits; survives restarts")
    termination_log: Path = Field(
        Path("/dev/termination-log"), description="exit record for Kubernetes, if it exists"
    )
    log_format: Literal["json", "console"] = Field("json", description="log lines")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="least severe line to log"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """``workers=True`` is a slip, not one worker."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and kind is not bool:
            raise ValueError("not true or false")
        return value

    @field_validator("bootstrap_servers", "topics", "wait_urls", "quit_urls", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("memory_high", mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        return 0 if isinstance(value, str) and value.strip().lower() == "off" else value

    @field_validator("bootstrap_servers")
    @classmethod
    def _host_port(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for server in value:
            host, _, port = server.rpartition(":")
            spaced = any(map(str.isspace, server))
            if not host or spaced or not port.isdigit() or not 0 < int(port) <= _LAST_PORT:
                raise ValueError(f"{server!r} is not host:port")
        return value

    @field_validator("topics")
    @classmethod
    def _topics(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for topic in value:
            if (problem := topic_problem(topic)) is not None:
                raise ValueError(problem)
        return value

    @field_validator("group_id", "client_id")
    @classmethod
    def _says_something(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("it is blank")
        return value

    @field_validator("wait_urls", "quit_urls")
    @classmethod
    def _loopback(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            if not re.match(r"https?://(localhost|127\.0\.0\.1|\[::1\])[:/]", url):
                raise ValueError(f"{url!r}: a sidecar is asked on loopback only")
        return value

    @field_validator("kafka_options")
    @classmethod
    def _known_options(cls, value: dict[str, Any]) -> dict[str, Any]:
        if problems := list(kafka_options.problems(value)):
            raise ValueError("; ".join(problems))
        return value

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        problems = list(self._problems())
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _problems(self) -> Iterable[str]:
        """Combinations that cannot work, each a sentence with the remedy."""
        if self.heartbeat_interval * 3 > self.session_timeout:
            yield (
                f"PENSTOCK_HEARTBEAT_INTERVAL ({self.heartbeat_interval:g} s) must be at most a "
                f"third of PENSTOCK_SESSION_TIMEOUT ({self.session_timeout:g} s): one lost "
                "heartbeat must not cost the membership"
            )
        if self.revoke_timeout >= self.max_poll_interval:
            yield (
                f"PENSTOCK_REVOKE_TIMEOUT ({self.revoke_timeout:g} s) must be below "
                f"PENSTOCK_MAX_POLL_INTERVAL ({self.max_poll_interval:g} s): polling waits for "
                "a revocation"
            )
        if self.revoke_timeout >= self.poll_stall_timeout:
            yield (
                f"PENSTOCK_POLL_STALL_TIMEOUT ({self.poll_stall_timeout:g} s) must exceed "
                f"PENSTOCK_REVOKE_TIMEOUT ({self.revoke_timeout:g} s), or a rebalance fails "
                "liveness"
            )
        if self.poll_stall_timeout >= self.max_poll_interval:
            yield (
                f"PENSTOCK_POLL_STALL_TIMEOUT ({self.poll_stall_timeout:g} s) is never reached: "
                f"PENSTOCK_MAX_POLL_INTERVAL ({self.max_poll_interval:g} s) must be longer"
            )
        if self.retry_first > self.retry_limit:
            yield "PENSTOCK_RETRY_FIRST must not exceed PENSTOCK_RETRY_LIMIT"
        if self.stable_identity and self.instance_id is None:
            yield (
                "PENSTOCK_STABLE_IDENTITY needs PENSTOCK_INSTANCE_ID: without it there is no "
                "identity to keep"
            )
        if self.control_token is not None and self.control_token_file is not None:
            yield "set either PENSTOCK_CONTROL_TOKEN or PENSTOCK_CONTROL_TOKEN_FILE, not both"
        yield from self._security_problems()

    def _security_problems(self) -> Iterable[str]:
        sasl = self.security_protocol.startswith("SASL_")
        tls = self.security_protocol.endswith("SSL")
        if sasl and self.sasl_mechanism is None:
            yield (
                f"PENSTOCK_SECURITY_PROTOCOL={self.security_protocol} needs PENSTOCK_SASL_MECHANISM"
            )
        if not sasl and (self.sasl_mechanism or self.sasl_username or self.sasl_password):
            yield (
                "PENSTOCK_SASL_* is set but PENSTOCK_SECURITY_PROTOCOL is "
                f"{self.security_protocol}: use SASL_SSL or SASL_PLAINTEXT"
            )
        if self.sasl_password is not None and self.sasl_password_file is not None:
            yield "set either PENSTOCK_SASL_PASSWORD or PENSTOCK_SASL_PASSWORD_FILE, not both"
        if sasl and self.sasl_mechanism in _SASL_WITH_PASSWORD:
            if not self.sasl_username:
                yield f"PENSTOCK_SASL_MECHANISM={self.sasl_mechanism} needs PENSTOCK_SASL_USERNAME"
            if self.sasl_password is None and self.sasl_password_file is None:
                yield f"PENSTOCK_SASL_MECHANISM={self.sasl_mechanism} needs PENSTOCK_SASL_PASSWORD"
        if not tls and (self.ssl_cafile or self.ssl_certfile or self.ssl_keyfile):
            yield (
                "PENSTOCK_SSL_* is set but PENSTOCK_SECURITY_PROTOCOL is "
                f"{self.security_protocol}: use SSL or SASL_SSL"
            )
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            yield "PENSTOCK_SSL_CERTFILE and PENSTOCK_SSL_KEYFILE go together"
        yield from kafka_options.conflicts(
            self.kafka_options,
            protocol=self.security_protocol,
            kerberos=self.sasl_mechanism == "GSSAPI",
            tls=bool(self.ssl_cafile or self.ssl_certfile),
            fetch_bytes=self.fetch_bytes,
        )
        for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "sasl_password_file"):
            path: Path | None = getattr(self, name)
            if path is not None and not os.access(path, os.R_OK):
                yield f"{env_name(name)}={path}: no such file, or not readable"

    # -- derived -----------------------------------------------------------------------

    def sasl_secret(self) -> str | None:
        """The SASL password, from the setting or its file (trailing newline removed)."""
        if self.sasl_password is not None:
            return self.sasl_password.get_secret_value()
        if self.sasl_password_file is not None:
            return self.sasl_password_file.read_text().rstrip("\r\n")
        return None

    def resolved_runtime_dir(self, env: Mapping[str, str] = os.environ) -> Path:
        """Where the generated control token lives, one directory a service (by port)."""
        if self.runtime_dir is not None:
            return self.runtime_dir
        return default_runtime_dir(env, self.http_port)

    def resolved_state_dir(
        self, target: str, directory: Path, env: Mapping[str, str] = os.environ
    ) -> Path:
        """Where the journal of ``target``, run from ``directory``, lives.

        ``PENSTOCK_STATE_DIR``, else ``PENSTOCK_RUNTIME_DIR``, else one for each application.
        """
        chosen = self.state_dir or self.runtime_dir
        return chosen or default_state_dir(env, self.http_port, target, directory)

    @property
    def keeps_state_in_public(self) -> bool:
        """Whether the state directory lies where everybody may write; one that is set does not."""
        return self.state_dir is None and self.runtime_dir is None


class _FromEnvironment(Settings, BaseSettings):
    """The same, each field looked up in the environment, then in what the code gave."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the code; nothing else is read."""
        del settings_cls, dotenv_settings, file_secret_settings
        return (env_settings, init_settings)


def env_name(field: str) -> str:
    """``drain_timeout`` → ``PENSTOCK_DRAIN_TIMEOUT``."""
    return PREFIX + field.upper()


def unknown_names(env: Iterable[str]) -> list[str]:
    """Sentences about ``PENSTOCK_*`` names in the environment that are not settings."""
    known = {env_name(field) for field in Settings.model_fields}
    problems = []
    for name in sorted(env):
        if not name.startswith(PREFIX) or name in known or _SERVICE_LINK.fullmatch(name):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else "; `penstock check` lists them all"
        problems.append(f"{name} is not a setting{hint}")
    return problems


def load(code: Mapping[str, Any], env: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from the code's values and the environment.

    Raises:
        ConfigError: naming every setting that is wrong, with the remedy.
    """
    problems = unknown_names(env)
    unknown_code = sorted(set(code) - set(Settings.model_fields))
    for name in unknown_code:
        close = difflib.get_close_matches(name, Settings.model_fields, n=1)
        problems.append(
            f"App({name}=…) is not a setting" + (f"; did you mean {close[0]}?" if close else "")
        )
    settings: Settings | None = None
    try:
        found = _FromEnvironment(**{k: v for k, v in code.items() if k not in unknown_code})
        settings = Settings.model_construct(**dict(found))
    except ValidationError as error:
        problems.extend(_sentences(error))
    except Exception as error:  # pydantic-settings wraps a JSON error of an env value
        named = [f for f in Settings.model_fields if f'"{f}"' in text_of(error)]
        where = ", ".join(map(env_name, named)) or "the settings cannot be read"
        broken = isinstance(error.__cause__, json.JSONDecodeError)
        what = "not JSON: " if broken else ""
        problems.append(f"{where}: {what}{text_of(error.__cause__ or error)}")
    if problems or settings is None:
        raise ConfigError("\n".join(problems))
    return settings


def _sentences(error: ValidationError) -> Iterable[str]:
    for item in error.errors(include_url=False):
        message = str(item["msg"]).removeprefix("Value error, ")
        message = message.replace("a valid dictionary", "a JSON object, {…}")
        if not item["loc"]:
            yield message  # a combination: the sentence names its settings itself
            continue
        name = env_name(str(item["loc"][0]))
        if item["type"] == "missing":
            yield f"{name} is not set: it is required"
            continue
        if _MAY_BE_SECRET.search(name):
            shown, message = "", message.replace("items after validation", "characters")
        else:
            shown = _shown(item)
        link = str(item.get("input")).startswith(("tcp://", "udp://"))
        hint = "; a Kubernetes service link? set enableServiceLinks: false" if link else ""
        yield f"{name}{shown}: {message[:1].lower()}{message[1:]}{hint}"


def _shown(item: Any) -> str:
    value = item.get("input")
    if isinstance(value, str | int | float | bool):
        return f"={value}"
    if isinstance(value, tuple | list):
        return "=" + ",".join(map(str, value))
    return ""


def effective(settings: Settings, code: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """``(PENSTOCK_NAME, value, source)`` of every setting, secrets masked."""
    rows = []
    for field in Settings.model_fields:
        value = getattr(settings, field)
        name = env_name(field)
        if os.environ.get(name):
            source = "environment"
        elif field in code:
            source = "code"
        else:
            source = "default"
        rows.append((name, _printable(value), source))
    return rows


def _printable(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "-"
    if isinstance(value, dict):  # the client's options
        shown = {k: "********" if _SECRET_OPTION.search(k) else v for k, v in value.items()}
        return json.dumps(shown, default=lambda v: f"<{type(v).__name__}>") if value else "-"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)
