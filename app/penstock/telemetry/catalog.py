"""Every metric Penstock exports, written once: collector, docs, alerts and tests read it here.

Labels are bounded: topics, partitions, workers and the values listed below; never keys,
offsets or record contents. A counter whose label values are all known starts at 0 with the
first scrape, because ``increase()`` cannot see a counter that is born at 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from penstock.exits import LOST, known_codes
from penstock.lifecycle import ORDER

Kind = Literal["counter", "gauge", "histogram", "info"]

#: What became of a record. One that was finished counts once: as done or as lost.
RecordOutcome = Literal["done", "retried", "dead_lettered", "skipped", "dropped", "lost"]
FailureReason = Literal["error", "timeout", "poison", "killed"]
CommitOutcome = Literal["ok", "failed"]
RebalanceEvent = Literal["assigned", "revoked", "lost"]
RestartSource = Literal["signal", "http", "prestop"]
ReloadOutcome = Literal["done", "given_up"]
RecycleReason = Literal["memory"]

RECORD_OUTCOMES: Final[tuple[RecordOutcome, ...]] = get_args(RecordOutcome)
FAILURE_REASONS: Final[tuple[FailureReason, ...]] = get_args(FailureReason)
COMMIT_OUTCOMES: Final[tuple[CommitOutcome, ...]] = get_args(CommitOutcome)
REBALANCE_EVENTS: Final[tuple[RebalanceEvent, ...]] = get_args(RebalanceEvent)
RESTART_SOURCES: Final[tuple[RestartSource, ...]] = get_args(RestartSource)
RELOAD_OUTCOMES: Final[tuple[ReloadOutcome, ...]] = get_args(ReloadOutcome)
RECYCLE_REASONS: Final[tuple[RecycleReason, ...]] = get_args(RecycleReason)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family under the full name that a query uses.

    ``buckets`` are upper bounds in the metric's unit (histograms only). ``known`` lists label
    values, in the order of ``labels``, of the series that exist from the first scrape.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    known: tuple[tuple[str, ...], ...] = ()

    @property
    def unit(self) -> str:
        """The unit as OpenMetrics wants it: the name's last word, or nothing."""
        last = self.name.rpartition("_")[2]
        return last if last in {"seconds", "bytes"} else ""


def flag(value: bool) -> str:
    """A boolean as a label value."""
    return "true" if value else "false"


def _each(values: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple((value,) for value in values)


_EXITS: Final = tuple((code, name, flag(planned)) for code, name, planned in known_codes())

BUILD_INFO: Final = Metric(
    "penstock_build_info",
    "info",
    "Versions of what is running.",
    ("version", "python", "kafka_python"),
)
STATE: Final = Metric(
    "penstock_state",
    "gauge",
    "1 for the state that the service is in, 0 for the others.",
    ("state",),
    known=_each(tuple(ORDER)),
)
EXITS: Final = Metric(
    "penstock_exits_total",
    "counter",
    "Ends of the service by exit code, kept in the journal across container restarts.",
    ("code", "name", "planned"),
    known=_EXITS,
)
UNPLANNED_EXITS: Final = Metric(
    "penstock_unplanned_exits_total",
    "counter",
    "Ends of the service that nobody planned, of any code: the one to alert on.",
    known=((),),
)
LAST_EXIT_TIMESTAMP: Final = Metric(
    "penstock_last_exit_timestamp_seconds",
    "gauge",
    "When the previous run ended, in seconds since the epoch; absent on the first run.",
)
LAST_EXIT_INFO: Final = Metric(
    "penstock_last_exit_info",
    "info",
    "How and why the previous run ended; absent on the first run.",
    ("code", "name", "planned", "reason"),
)
WORKER_EXITS: Final = Metric(
    "penstock_worker_exits_total",
    "counter",
    "Ends of worker processes by exit code, in this run of the service.",
    ("code", "name", "planned"),
    # The supervisor always learns how its own child ended: no worker exit is LOST.
    known=tuple(labels for labels in _EXITS if labels[1] != LOST),
)
RELOADS: Final = Metric(
    "penstock_reloads_total",
    "counter",
    "Reloads (HUP) by outcome: done, or given_up (the old workers went on, or the service ended).",
    ("outcome",),
    known=_each(RELOAD_OUTCOMES),
)
WORKER_RECYCLES: Final = Metric(
    "penstock_worker_recycles_total",
    "counter",
    "Workers replaced in place on purpose, by why: memory (the working set came near the limit).",
    ("reason",),
    known=_each(RECYCLE_REASONS),
)
WORKER_MEMORY: Final = Metric(
    "penstock_worker_memory_bytes",
    "gauge",
    "Resident memory of each worker process.",
    ("worker",),
)
MEMORY_WORKING_SET: Final = Metric(
    "penstock_memory_working_set_bytes",
    "gauge",
    "Working set of the service's memory cgroup: what the limit is held against.",
)
MEMORY_LIMIT: Final = Metric(
    "penstock_memory_limit_bytes",
    "gauge",
    "Limit of that cgroup; absent where there is none.",
)
RESTART_REQUESTS: Final = Metric(
    "penstock_restart_requests_total",
    "counter",
    "Requests to restart, by where they came from.",
    ("source",),
    known=_each(RESTART_SOURCES),
)
DRAIN_DURATION: Final = Metric(
    "penstock_drain_duration_seconds",
    "histogram",
    "From the request to the end of the drain. Kept in the journal: a drain is seen in the "
    "next run's scrapes.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 20, 25, 30, 45, 60, 120, 300, 600),
)
RESTART_GAP: Final = Metric(
    "penstock_restart_gap_seconds",
    "histogram",
    "From the last record done before a planned restart to the first one taken after it. "
    "Kept in the journal.",
    buckets=(0.5, 1, 2, 5, 10, 15, 20, 30, 45, 60, 120, 300, 600, 1800),
)
RECORDS: Final = Metric(
    "penstock_records_total",
    "counter",
    "Records by outcome: done (the handler returned), retried (it raised), dead_lettered (given "
    "up on, in the dead-letter topic), skipped (given up on), dropped (buffered but never "
    "started; will be delivered again), lost (finished, but the partition had been "
    "taken away before the commit; will be delivered again).",
    ("topic", "outcome"),
)
FAILURES: Final = Metric(
    "penstock_record_failures_total",
    "counter",
    "Tries that failed: error (the handler raised), timeout (it took too long), poison (it "
    "cannot succeed, or the value cannot be decoded), killed (the record was handled alone and "
    "its process died again; its handler is not called any more).",
    ("topic", "reason"),
)
DEAD_LETTERS: Final = Metric(
    "penstock_dead_letter_sends_total",
    "counter",
    "Dead letters sent, by the topic of the record and whether the broker confirmed them; one "
    "that failed is sent again.",
    ("topic", "outcome"),
)
RETRYING: Final = Metric(
    "penstock_retrying_records",
    "gauge",
    "Records that wait for their next try, or for their dead letter to be sent again.",
)
BREAKER_OPEN: Final = Metric(
    "penstock_breaker_open",
    "gauge",
    "Workers whose circuit breaker is open or probing, by consumer group.",
    ("group",),
)
BREAKER_OPENED: Final = Metric(
    "penstock_breaker_opened_total",
    "counter",
    "How often circuit breakers opened, by consumer group.",
    ("group",),
)
RECORD_PROCESSING: Final = Metric(
    "penstock_record_processing_seconds",
    "histogram",
    "Time in the handler, for each record.",
    ("topic",),
    buckets=(
        *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
        *(1, 2.5, 5, 10, 30, 60, 300),
    ),
)
RECORD_AGE: Final = Metric(
    "penstock_record_age_seconds",
    "histogram",
    "Age of the oldest record of each batch when the batch is handed to a handler.",
    ("topic",),
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 21600, 86400, 604800),
)
IN_FLIGHT: Final = Metric(
    "penstock_in_flight_records", "gauge", "Records that handlers hold at this moment."
)
OLDEST_IN_FLIGHT: Final = Metric(
    "penstock_oldest_in_flight_seconds",
    "gauge",
    "How long the record longest in a handler has been there; 0 while none is.",
)
LAG: Final = Metric(
    "penstock_consumer_lag",
    "gauge",
    "Records between the position and the end of the partition; absent while unknown.",
    ("topic", "partition"),
)
ASSIGNED: Final = Metric(
    "penstock_assigned_partitions", "gauge", "Partitions assigned to this service's workers."
)
REBALANCES: Final = Metric(
    "penstock_rebalances_total",
    "counter",
    "Changes of the assignment: assigned, revoked (given up in order), lost (taken away).",
    ("event",),
    known=_each(REBALANCE_EVENTS),
)
COMMITS: Final = Metric(
    "penstock_commits_total",
    "counter",
    "Offset commits by outcome.",
    ("outcome",),
    known=_each(COMMIT_OUTCOMES),
)
POLL_AGE: Final = Metric(
    "penstock_poll_age_seconds",
    "gauge",
    "Since each worker's last poll; absent until the first one.",
    ("worker",),
)

METRICS: Final[tuple[Metric, ...]] = (
    BUILD_INFO,
    STATE,
    EXITS,
    UNPLANNED_EXITS,
    LAST_EXIT_TIMESTAMP,
    LAST_EXIT_INFO,
    WORKER_EXITS,
    RELOADS,
    WORKER_RECYCLES,
    WORKER_MEMORY,
    MEMORY_WORKING_SET,
    MEMORY_LIMIT,
    RESTART_REQUESTS,
    DRAIN_DURATION,
    RESTART_GAP,
    RECORDS,
    FAILURES,
    DEAD_LETTERS,
    RETRYING,
    BREAKER_OPEN,
    BREAKER_OPENED,
    RECORD_PROCESSING,
    RECORD_AGE,
    IN_FLIGHT,
    OLDEST_IN_FLIGHT,
    LAG,
    ASSIGNED,
    REBALANCES,
    COMMITS,
    POLL_AGE,
)
