"""A handler that never returns: the deadline holds, and what blocked the drain is named."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import pytest

from devtools.broker import Admin
from devtools.load import Ledger, Load, Trap
from devtools.service import Service

Launch = Callable[..., Service]
LoadFor = Callable[..., Load]
DEADLINE = 3


@pytest.mark.parametrize(("ask", "deed"), [(signal.SIGUSR2, "sleep"), (signal.SIGTERM, "gil")])
def test_stuck_handler_is_abandoned_and_named(
    launch: Launch,
    load_for: LoadFor,
    ledger: Ledger,
    trap: Trap,
    admin: Admin,
    topic: str,
    group: str,
    ask: int,
    deed: str,
) -> None:
    """``gil``: in C code that holds the GIL, where the worker cannot say or commit anything."""
    service = launch(
        drain_timeout=DEADLINE,
        concurrency=3,
        workers=2,
        session_timeout=6,  # a worker that is killed keeps its seat that long
        heartbeat_interval=1,
    )
    service.start().until_ready()
    work = load_for(service)
    work.stream.send(120)
    work.until_handled(120)
    # What is finished must be committed before the GIL goes; else nobody could do it any more.
    service.until(
        lambda: sum(admin.committed_offsets(group, topic).values()) == 120, "commits of everything"
    )
    trap.set(3, 10, deed, 3600)
    work.stream.send(12)
    service.until(lambda: [3, 10] in [[r.partition, r.sequence] for r in ledger.rows()], "the deed")
    if deed == "sleep":
        work.until_handled(132)  # the other partitions go on

    assert service.stop(ask) == 2

    record = service.exit_record()
    assert (record["code"], record["name"], record["planned"]) == (2, "FORCED", False)
    assert f"{topic}[3]@10" in record["reason"]
    journal = (service.directory / "state" / "journal.jsonl").read_text().splitlines()
    for told in (record, json.loads(journal[-1])):
        held = told["in_flight_at_deadline"]
        (stuck,) = [item for item in held if item["partition"] == 3]
        # The GIL may have gone while another thread's handler was in the middle of its work.
        assert deed == "gil" or held == [stuck]
        assert (stuck["topic"], stuck["offset"]) == (topic, 10)
        assert stuck["key"] == "3"
        assert stuck["age_seconds"] > 1
        assert "misbehave" in stuck["stack"]
    log = service.log()
    assert f"{topic}[3]@10" in log
    assert "misbehave" in log

    trap.spring()
    report = work.report()
    assert report.lost == 0, str(report)
    repeated = set(ledger.repeated())
    if deed == "sleep":
        assert repeated == {(3, 10)}
    else:  # its worker could not commit what finished beside it since
        assert (3, 10) in repeated
        assert all(sequence == 10 for _, sequence in repeated)


def test_a_thread_left_behind_does_not_spoil_a_clean_drain(
    launch: Launch, load_for: LoadFor, ledger: Ledger, trap: Trap
) -> None:
    """Everything was finished and committed: nobody waits for a thread of the user's."""
    service = launch(drain_timeout=DEADLINE).start().until_ready()
    work = load_for(service)
    trap.set(3, 0, "thread", 3600)
    work.stream.send(24)
    work.until_handled(24)
    assert service.stop(signal.SIGUSR2) == 4
    assert "a drained worker did not exit" not in service.log()
    report = work.report()
    assert report.perfect, str(report)
