"""What the HTTP side says and takes: the JSON of ``/status``, the probes and the requests.

Times are in seconds. The answers ignore unknown fields when they are read back (a journal
written by a newer version must stay readable); the requests refuse them (a misspelt ``hold``
must not restart a service at once).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from penstock.lifecycle import Kind, Outcome, State


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Ask(BaseModel):
    # strict: "hold": "no" is a mistake to be told, not a truth value to be guessed.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


# -- answers ---------------------------------------------------------------------------


class InFlight(_Answer):
    """A record that a handler has started and not finished."""

    topic: str
    partition: int
    offset: int
    key: str | None = Field(default=None, description="UTF-8 where printable, else hexadecimal")
    age_seconds: float
    stack: str | None = Field(
        default=None, description="where the handler's thread is, if captured"
    )
    count: int = Field(default=1, description="records of a batch; offset is the first one's")
    last: int | None = Field(default=None, description="the last one's offset, of a batch")


class Worker(_Answer):
    """One worker process."""

    index: int
    pid: int | None = Field(default=None, description="absent while the worker is being replaced")
    handler: str | None = Field(default=None, description="its subscription; unknown at first")
    group: str | None = Field(default=None, description="its consumer group; unknown at first")
    state: str
    joined: bool = Field(description="joined its group and polled at least once")
    poll_age_seconds: float | None = Field(default=None, description="since the last poll returned")
    instance_id: str | None = Field(
        default=None, description="group.instance.id (static membership)"
    )
    assignment: dict[str, list[int]] = Field(default={}, description="topic → partitions")
    lag: dict[str, dict[str, int]] = Field(
        default={}, description="topic → partition → records; a partition of unknown lag is absent"
    )
    in_flight: list[InFlight] = []
    warnings: list[str] = []


class ExitRecord(_Answer):
    """How a run ended: a journal line, and the termination message."""

    code: int | Literal["unknown"] = Field(description="unknown: the run left no exit line")
    name: str
    planned: bool
    reason: str = ""
    requested_by: str = ""
    drain_seconds: float | None = None
    in_flight_at_deadline: list[InFlight] = []
    held_at_death: list[InFlight] = Field(default=[], description="by a worker that died")
    memory_peak_bytes: int | None = Field(
        default=None, description="the most that the process which died ever held"
    )
    memory_limit_bytes: int | None = Field(default=None, description="the cgroup's limit")
    uptime_seconds: float
    at: AwareDatetime
    run: str = Field(default="", description="which run ended: what `run` of its status was")


class ExitCount(_Answer):
    """How often a code was returned, over the runs that the journal remembers."""

    code: str
    name: str
    planned: bool
    count: int


class Intent(_Answer):
    """What was asked of the service."""

    kind: Kind
    reason: str = ""
    requested_by: str = ""
    held: bool = False
    released: bool = False


class FailureInfo(_Answer):
    """Why the exit will be unplanned."""

    code: int
    name: str
    reason: str


class Drain(_Answer):
    """A drain under way."""

    age_seconds: float
    left_seconds: float


class Reload(_Answer):
    """The reload that was asked for last (HUP, ``POST /reload``).

    Whoever asked waits until ``id`` is at least the one that came with the answer to the
    request, and ``state`` is ``done`` or ``given up``. A reload asked for while another one
    runs comes after it, with the next ``id``.
    """

    state: Literal["none", "wanted", "running", "done", "given up"] = "none"
    id: int = Field(default=0, description="how many were asked for in this run; 0: none")
    reason: str = Field(default="", description="why it was given up")
    requested_by: str = ""
    asked_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None


class Build(_Answer):
    """What is running."""

    version: str
    python: str
    kafka_python: str


class Status(_Answer):
    """The whole picture."""

    run: str = Field(default="", description="changes with each start of the service")
    state: State
    ready: bool
    live: bool
    reasons: list[str] = Field(default=[], description="why it is not ready, or not live")
    intent: Intent | None = None
    failure: FailureInfo | None = None
    drain: Drain | None = None
    reload: Reload = Reload()
    uptime_seconds: float
    build: Build
    group: str = Field(description="the consumer group; several, with commas between them")
    topics: list[str] = Field(description="names, and patterns between slashes")
    workers: list[Worker]
    last_exit: ExitRecord | None = None
    exits: list[ExitCount] = []


class Probe(_Answer):
    """A probe's answer and, where it is no, why."""

    status: Literal["ok", "failing"]
    reasons: list[str] = []


class Accepted(_Answer):
    """What became of a request, and the service right after it."""

    outcome: Outcome
    status: Status
    journal: str | None = Field(
        default=None, description="the file that the exit will be written to, on its machine"
    )


class Problem(_Answer):
    """Why a request was not served."""

    detail: str


# -- requests --------------------------------------------------------------------------


def _one_line(text: str) -> str:
    """Free text of a stranger ends up in logs: no control characters, no line breaks."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


Reason = Annotated[
    str,
    Field(max_length=200, description="free text for the log, the journal and the exit record"),
    AfterValidator(_one_line),
]


class ReasonRequest(_Ask):
    """Body of ``POST /stop``, ``/quiet``, ``/resume`` and ``/reload``."""

    reason: Reason = ""


class RestartRequest(ReasonRequest):
    """Body of ``POST /restart``."""

    hold: bool = Field(
        default=False,
        description="drain, stay up until TERM or the end of the budget, then exit 4",
    )
    source: Literal["http", "prestop"] = "http"
