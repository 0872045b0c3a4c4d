"""A handler that leaks, below a limit that the kernel enforces: planned replacements, no kill."""

from __future__ import annotations

import signal
from collections.abc import Callable

from devtools.broker import Broker
from devtools.load import Ledger, Load
from devtools.service import Service

Launch = Callable[..., Service]

LIMIT = 256 << 20
RECORDS = 2_200
#: Bytes that each record leaves behind: all together more than the limit.
LEAK = 100_000
#: Seconds of work a record: it leaks 25 MB a second at most, however fast the machine.
WORK = 0.004


def test_a_leak_costs_planned_replacements(
    cgroup: Callable[[int], tuple[str, ...]],
    make_service: Callable[..., Service],
    load_for: Callable[..., Load],
    ledger: Ledger,
    topic: str,
    group: str,
    broker: Broker,
) -> None:
    """Without them the kernel kills the worker (137) in the middle."""
    service = make_service(
        "devtools.apps.leaky:app",
        env={"LEAK": str(LEAK), "LEDGER_SLEEP": str(WORK)},
        wrapper=cgroup(LIMIT),
        bootstrap_servers=broker.bootstrap,
        topics=topic,
        group_id=group,
        instance_id="leaky",
        memory_high=0.75,
        memory_interval=3,
        buffer_bytes=8_000_000,
        fetch_bytes=1_000_000,
    )
    service.start().until_ready()
    work = load_for(service, partitions=1)
    work.stream.send(RECORDS)
    service.until(lambda: ledger.count() >= RECORDS, "all records", 120)
    metrics = service.metrics()
    recycled = metrics['penstock_worker_recycles_total{reason="memory"}']
    assert recycled >= 1
    assert metrics["penstock_memory_limit_bytes"] == LIMIT
    assert 0 < metrics['penstock_worker_memory_bytes{worker="0"}'] < LIMIT
    assert metrics["penstock_memory_working_set_bytes"] < LIMIT
    told = service.log_lines("replacing the largest worker before memory runs out")
    assert len(told) == recycled
    for line in told:
        assert line["working_set"] >= 0.75 * LIMIT
        assert 0 < line["private"] <= line["resident"] < LIMIT
        assert line["partitions_in_all"] == 12
        assert [at.partition("@")[0] for at in line["in_flight"]] in ([], [f"{topic}[0]"])
    ended = [line["code"] for line in service.log_lines("worker ended")]
    assert ended == [4] * len(told)
    assert service.stop(signal.SIGUSR2) == 4
    report = work.report()
    assert (report.lost, report.repeated) == (0, 0), str(report)
    assert len({row.pid for row in ledger.rows()}) == len(told) + 1
