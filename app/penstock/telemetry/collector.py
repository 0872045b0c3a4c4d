"""From facts about the service to the text that ``GET /metrics`` answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from penstock.lifecycle import ORDER, State
from penstock.telemetry import catalog
from penstock.telemetry.histogram import Histogram
from penstock.telemetry.tally import Tally

#: A reason is a person's sentence; a label is not the place for a novel.
_REASON_LENGTH: Final = 160
#: The format versions that the answer may claim.
_SPOKEN: Final = re.compile(r"version=(0\.0\.4|1\.0\.0);")

ExitKey = tuple[str, str, bool]  # code, name, planned


class LastExit(Protocol):
    """The end of the previous run, as far as metrics tell it."""

    @property
    def key(self) -> ExitKey:
        """Code, name and whether it was planned."""
        ...

    @property
    def reason(self) -> str:
        """One sentence."""
        ...

    @property
    def at(self) -> float:
        """Seconds since the epoch."""
        ...


class Exits(Protocol):
    """The history of exits. Telemetry lies below the supervisor, so it only knows this shape."""

    @property
    def counts(self) -> Mapping[ExitKey, int]:
        """Ends of the service."""
        ...

    @property
    def unplanned(self) -> int:
        """Ends that nobody planned."""
        ...

    @property
    def last(self) -> LastExit | None:
        """The latest one, if there is any."""
        ...

    @property
    def drain(self) -> Histogram:
        """Durations of drains, in seconds."""
        ...

    @property
    def gap(self) -> Histogram:
        """Restart gaps, in seconds."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """One worker at the moment of the scrape.

    ``lag`` is in records and only has partitions whose lag is known. ``oldest_in_flight`` and
    ``poll_age`` are in seconds; None is unknown, or nothing in flight.
    """

    index: int
    tally: Tally
    lag: Mapping[tuple[str, int], int]
    assigned: int
    in_flight: int
    oldest_in_flight: float | None
    poll_age: float | None
    #: Its consumer group, records that wait for another try, and whether its breaker is closed.
    group: str = ""
    retrying: int = 0
    breaker_closed: bool = True
    #: Resident bytes of its process; None is unknown.
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """The service at the moment of the scrape.

    ``retired`` is the sum over workers that are gone. ``worker_exits`` counts by code, name
    and whether it was planned; ``build`` has a value for each label of ``penstock_build_info``.
    """

    state: State
    workers: Sequence[WorkerFacts]
    retired: Tally
    exits: Exits
    worker_exits: Mapping[ExitKey, int]
    restart_requests: Mapping[str, int]
    build: Mapping[str, str]
    #: Workers replaced in place, by reason; the memory cgroup in bytes, None is unknown.
    recycles: Mapping[str, int] = field(default_factory=dict)
    reloads: Mapping[str, int] = field(default_factory=dict)
    working_set: int | None = None
    memory_limit: int | None = None


Labels = tuple[str, ...]
Numbers = dict[str, dict[Labels, float]]
Histograms = dict[str, dict[Labels, Histogram]]


def exposition(facts: Facts, accept: str) -> tuple[bytes, str]:
    """Exposition text and its content type, as the ``Accept`` header asks for it.

    Prometheus text, or OpenMetrics when that is asked for.
    """
    try:
        encode, content_type = choose_encoder(accept)
    except TypeError:  # a version that is no number
        content_type = ""
    if not _SPOKEN.search(content_type):  # the library echoes whatever version was asked for
        encode, content_type = choose_encoder("")
    return encode(_Collected(facts)), content_type


class _Collected(Collector):
    """The encoder asks a collector; this one has its answer ready."""

    def __init__(self, facts: Facts) -> None:
        total = Tally()
        for tally in (facts.retired, *(worker.tally for worker in facts.workers)):
            total.merge(tally)
        self._numbers = numbers(facts, total)
        self._histograms = histograms(facts.exits, total)

    def collect(self) -> Iterable[Family]:
        for metric in catalog.METRICS:
            if metric.kind == "histogram":
                yield _histogram(metric, self._histograms[metric.name])
            else:
                yield _plain(metric, self._numbers[metric.name])


# -- facts to series: metric name → label values → value ---------------------------------------


def numbers(facts: Facts, total: Tally) -> Numbers:
    """The series of every metric that is not a histogram. ``total`` is over all workers."""
    return {
        **_service(facts),
        **_exits(facts.exits),
        **_counts(total),
        **_workers(facts.workers),
        **_breakers(facts.workers, total),
    }


def histograms(exits: Exits, total: Tally) -> Histograms:
    """The series of every histogram."""
    return {
        catalog.DRAIN_DURATION.name: {(): exits.drain},
        catalog.RESTART_GAP.name: {(): exits.gap},
        catalog.RECORD_PROCESSING.name: {(t,): h for t, h in total.processing.items()},
        catalog.RECORD_AGE.name: {(t,): h for t, h in total.age.items()},
    }


def _service(facts: Facts) -> Numbers:
    build = tuple(facts.build.get(label, "") for label in catalog.BUILD_INFO.labels)
    requests: dict[Labels, int] = {(source,): n for source, n in facts.restart_requests.items()}
    return {
        catalog.BUILD_INFO.name: {build: 1},
        catalog.STATE.name: {(state,): int(state is facts.state) for state in ORDER},
        catalog.RESTART_REQUESTS.name: _from_zero(catalog.RESTART_REQUESTS, requests),
        catalog.WORKER_EXITS.name: _from_zero(catalog.WORKER_EXITS, _by_exit(facts.worker_exits)),
        catalog.RELOADS.name: _from_zero(
            catalog.RELOADS, {(outcome,): n for outcome, n in facts.reloads.items()}
        ),
        catalog.WORKER_RECYCLES.name: _from_zero(
            catalog.WORKER_RECYCLES, {(reason,): n for reason, n in facts.recycles.items()}
        ),
        catalog.MEMORY_WORKING_SET.name: _if_known(facts.working_set),
        catalog.MEMORY_LIMIT.name: _if_known(facts.memory_limit),
    }


def _exits(exits: Exits) -> Numbers:
    info: dict[Labels, float] = {}
    when: dict[Labels, float] = {}
    if exits.last is not None:
        code, name, planned = exits.last.key
        info = {(code, name, catalog.flag(planned), _clip(exits.last.reason)): 1}
        when = {(): exits.last.at}
    return {
        catalog.EXITS.name: _from_zero(catalog.EXITS, _by_exit(exits.counts)),
        catalog.UNPLANNED_EXITS.name: {(): exits.unplanned},
        catalog.LAST_EXIT_TIMESTAMP.name: when,
        catalog.LAST_EXIT_INFO.name: info,
    }


def _counts(total: Tally) -> Numbers:
    # A tally has every commit outcome and rebalance event from its first moment, at 0.
    return {
        catalog.RECORDS.name: {
            (topic, outcome): n
            for topic, outcomes in total.records.items()
            for outcome, n in outcomes.items()
        },
        catalog.FAILURES.name: {
            (topic, reason): n
            for topic, reasons in total.failures.items()
            for reason, n in reasons.items()
        },
        catalog.DEAD_LETTERS.name: {
            (topic, outcome): n
            for topic, outcomes in total.dead_letters.items()
            for outcome, n in outcomes.items()
        },
        catalog.COMMITS.name: {(outcome,): n for outcome, n in total.commits.items()},
        catalog.REBALANCES.name: {(event,): n for event, n in total.rebalances.items()},
    }


def _breakers(workers: Sequence[WorkerFacts], total: Tally) -> Numbers:
    groups = sorted({worker.group for worker in workers if worker.group})
    open_now: dict[Labels, float] = {
        (group,): sum(w.group == group and not w.breaker_closed for w in workers)
        for group in groups
    }
    opened: dict[Labels, float] = {(group,): 0 for group in groups}
    opened.update({(group,): n for group, n in total.breakers.items()})
    return {catalog.BREAKER_OPEN.name: open_now, catalog.BREAKER_OPENED.name: opened}


def _workers(workers: Sequence[WorkerFacts]) -> Numbers:
    lag: dict[Labels, float] = {}
    for worker in workers:
        for (topic, partition), records in worker.lag.items():
            labels = (topic, str(partition))
            # Two workers name a partition only while it moves: the larger lag hides nothing.
            lag[labels] = max(records, lag.get(labels, 0))
    in_flight = sum(worker.in_flight for worker in workers)
    ages = [w.oldest_in_flight for w in workers if w.oldest_in_flight is not None]
    oldest: dict[Labels, float] = {(): max(ages)} if ages else {}
    return {
        catalog.IN_FLIGHT.name: {(): in_flight},
        catalog.OLDEST_IN_FLIGHT.name: oldest if in_flight else {(): 0},
        catalog.RETRYING.name: {(): sum(worker.retrying for worker in workers)},
        catalog.LAG.name: lag,
        catalog.ASSIGNED.name: {(): sum(worker.assigned for worker in workers)},
        catalog.WORKER_MEMORY.name: {
            (str(w.index),): w.memory for w in workers if w.memory is not None
        },
        catalog.POLL_AGE.name: {
            (str(w.index),): w.poll_age for w in workers if w.poll_age is not None
        },
    }


def _if_known(value: float | None) -> dict[Labels, float]:
    return {} if value is None else {(): value}


def _from_zero(metric: catalog.Metric, counts: Mapping[Labels, int]) -> dict[Labels, float]:
    return {**dict.fromkeys(metric.known, 0), **counts}


def _by_exit(counts: Mapping[ExitKey, int]) -> dict[Labels, int]:
    return {(code, name, catalog.flag(planned)): n for (code, name, planned), n in counts.items()}


def _clip(text: str) -> str:
    """One line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= _REASON_LENGTH else line[: _REASON_LENGTH - 1] + "…"


# -- series to prometheus_client's families ----------------------------------------------------


def _plain(metric: catalog.Metric, series: Mapping[Labels, float]) -> Family:
    # A family goes by its bare name; the encoders add ``_total`` and ``_info`` where they belong.
    family: CounterMetricFamily | GaugeMetricFamily | InfoMetricFamily
    if metric.kind == "info":
        family = InfoMetricFamily(metric.name.removesuffix("_info"), metric.help)
        for labels in series:
            values = map(_encodable, labels)
            family.add_metric([], dict(zip(metric.labels, values, strict=True)))
        return family
    if metric.kind == "counter":
        bare = metric.name.removesuffix("_total")
        family = CounterMetricFamily(bare, metric.help, labels=metric.labels)
    else:
        family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels, unit=metric.unit)
    for labels, value in series.items():
        family.add_metric([_encodable(label) for label in labels], value)
    return family


def _histogram(metric: catalog.Metric, series: Mapping[Labels, Histogram]) -> Family:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels, unit=metric.unit)
    for labels, values in series.items():
        buckets = [
            (floatToGoString(bound), float(count))  # type: ignore[no-untyped-call]  # theirs has none
            for bound, count in values.cumulative()
        ]
        family.add_metric([_encodable(label) for label in labels], buckets, values.sum)
    return family


def _encodable(label: str) -> str:
    """A lone surrogate (an exception's text, a file name) must not cost the whole scrape."""
    return label.encode(errors="replace").decode()
