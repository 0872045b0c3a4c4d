"""A worker that dies is counted with its code; what the others hold is finished."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from devtools.load import Ledger, Load, Trap
from devtools.service import Service

Launch = Callable[..., Service]
LoadFor = Callable[..., Load]
MEMORY_LIMIT = 400 << 20
#: A member that dies without a word keeps its seat, and the group waiting, for this long.
BRIEF = {"session_timeout": 6, "heartbeat_interval": 1}


def until_balanced(service: Service, workers: int) -> None:
    """Wait until every worker has partitions."""

    def balanced() -> bool:
        found = [w["assignment"] for w in service.status().get("workers", [])]
        return len(found) == workers and all(found)

    service.until(balanced, "an assignment for every worker")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, 137), (signal.SIGSEGV, 139)])
def test_killed_worker_and_its_neighbour(
    launch: Launch, load_for: LoadFor, ledger: Ledger, number: int, code: int
) -> None:
    service = launch("devtools.apps.ledger:app", workers=2, **BRIEF).start().until_ready()
    until_balanced(service, 2)
    load = load_for(service).start()
    victim, neighbour = (w["pid"] for w in service.status()["workers"])
    os.kill(victim, number)
    assert service.wait() == code
    record = service.exit_record()
    assert (record["code"], record["name"], record["planned"]) == (code, "KILLED", False)
    assert record["reason"].startswith("worker 0: died")
    ended = {line["worker"]: line["code"] for line in service.log_lines("worker ended")}
    assert ended == {0: code, 1: 4}  # the neighbour drained and committed
    report = load.report()
    assert report.lost == 0, str(report)
    # At most what the victim had finished and not committed is done again.
    assert {pids[0] for pids in ledger.repeated().values()} <= {victim}
    assert neighbour in {row.pid for row in ledger.rows()}


@pytest.mark.parametrize(
    ("deed", "code", "words"),
    [
        ("segfault", 139, "died"),
        ("os-exit", 1, "exited with status 0 without being asked to"),
        ("sys-exit", 1, "a handler raised SystemExit"),
    ],
)
def test_handler_ends_its_process(
    launch: Launch, load_for: LoadFor, trap: Trap, deed: str, code: int, words: str
) -> None:
    service = launch().start().until_ready()
    trap.set(0, 5, deed)
    work = load_for(service, partitions=1)
    work.stream.send(20)
    assert service.wait() == code
    record = service.exit_record()
    assert (record["code"], record["planned"]) == (code, False)
    assert words in record["reason"]
    if deed == "segfault":
        assert "misbehave" in service.log()  # faulthandler says where
    if deed == "sys-exit":  # the worker itself lived, so what was finished is committed
        trap.spring()
        report = work.report()
        assert (report.lost, report.repeated) == (0, 1), str(report)


def test_raising_handler_is_tried_again_while_others_go_on(
    launch: Launch, load_for: LoadFor, ledger: Ledger, trap: Trap
) -> None:
    service = launch(retry_first=0.1, retry_limit=0.4).start().until_ready()
    trap.set(3, 2, "raise")
    work = load_for(service)
    work.stream.send(60)
    work.until_handled(60 - 2)  # all but 3 and 4 of partition 3
    service.until(lambda: len(ledger.repeated().get((3, 2), [])) > 3, "more tries")
    failures = service.log_lines("handler failed; the record will be tried again")
    assert [line["attempt"] for line in failures[:3]] == [1, 2, 3]
    assert service.get("/livez")[0] == 200
    assert service.stop(signal.SIGUSR2) == 4
    service.start().until_ready()
    service.until(lambda: len(set(ledger.repeated()[3, 2])) == 2, "a try of the new process")
    assert service.stop(signal.SIGTERM) == 0
    trap.spring()
    report = work.report()
    assert report.lost == 0, str(report)
    assert set(ledger.repeated()) == {(3, 2)}


def test_out_of_memory(
    cgroup: Callable[[int], tuple[str, ...]], launch: Launch, load_for: LoadFor, trap: Trap
) -> None:
    """The kernel kills the worker, the largest process; the supervisor lives to tell."""
    service = launch(wrapper=cgroup(MEMORY_LIMIT), memory_high=0).start().until_ready()
    trap.set(0, 5, "memory")
    work = load_for(service, partitions=1)
    work.stream.send(20)
    assert service.wait(60) == 137
    record = service.exit_record()
    assert (record["code"], record["name"]) == (137, "KILLED")
    assert "out of memory" in record["reason"]
