"""``penstock dlq`` as people run it: letters that a service made, exit codes, nothing lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.broker import Admin, Broker, have_broker
from devtools.reading import read
from devtools.service import Service
from devtools.tasks import APP, Reader, Task, environment, send
from penstock.kafka.letter_box import BATCH
from tests.conftest import unavailable
from tests.scenarios.course import Course

POISON = 4
TROUBLE = 36
EVERY_BYTE = bytes(range(256))


class Letters:
    """A service whose handler fails while there is trouble, and its dead-letter topic."""

    def __init__(self, course: Course, dead: str, trouble: Path, service: Service) -> None:
        self.course = course
        self.dead = dead
        self.trouble = trouble
        self.service = service

    def made(self) -> int:
        return sum(Admin(self.course.bootstrap).end_offsets(self.dead).values())

    def sent_back(self) -> int:
        """How many records are in the topic beside those that were sent first."""
        ends = Admin(self.course.bootstrap).end_offsets(self.course.topic)
        return sum(ends.values()) - self.course.total

    def make(self, tasks: list[Task]) -> None:
        before = self.made()
        self.course.send(tasks)
        self.service.until(lambda: self.made() >= before + len(tasks), "all letters")

    def dlq(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.service.command("dlq", command, self.dead, *arguments)

    def open(self) -> int:
        listed = self.dlq("list", "--json")
        assert listed.returncode == 0, listed.stderr
        return len(listed.stdout.splitlines())

    def replaying(self) -> subprocess.Popen[str]:
        """A replay of everything, on its way: some letters are in the topic again."""
        before = self.sent_back()
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock", "dlq", "replay", self.dead, "--yes"],
            env=self.service._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while self.sent_back() == before:
            assert process.poll() is None, process.communicate()
        return process


@pytest.fixture
def letters(
    make_course: Callable[..., Course],
    serve: Callable[..., Service],
    admin: Admin,
    group: str,
    tmp_path: Path,
) -> Letters:
    dead, trouble = f"dead-{group}", tmp_path / "trouble"
    admin.create_topic(dead, 2)
    course = make_course(
        partitions=2,
        trouble=trouble,
        order_by="key",
        concurrency=8,
        retry={"attempts": 1},
        then=["dead_letter", dead],
    )
    return Letters(course, dead, trouble, serve(course).start().until_ready())


ROUNDS = "penstock.dlq.rounds"


def told(message: Any) -> tuple[object, ...]:
    """What a record is, wherever it lies in its partition, and however often it went round."""
    headers = tuple(each for each in message.headers() or () if each[0] != ROUNDS)
    return message.partition(), message.key(), message.value(), headers


def rounds(message: Any) -> bytes | None:
    return dict(message.headers() or ()).get(ROUNDS)


def tasks(count: int, **more: Any) -> list[Task]:
    """Each in a partition that no hash of its key has chosen."""
    own = (("trace", EVERY_BYTE), ("empty", b""), ("trace", b"again"))
    return [
        Task(n % 2, b"\xff%d" % n, EVERY_BYTE + b"%d" % n, more=own, **more) for n in range(count)
    ]


def test_letters_are_looked_at_replayed_handled_and_dropped(letters: Letters) -> None:
    course = letters.course
    letters.make(tasks(POISON, poison="no such customer"))
    letters.trouble.touch()
    letters.make(tasks(TROUBLE))
    letters.trouble.unlink()  # mended
    assert course.done() == 0

    counted = letters.dlq("list", "--by", "error")
    assert counted.returncode == 0, counted.stderr
    rows = [line.split() for line in counted.stdout.splitlines()[1:]]
    assert [(row[0], row[-1]) for row in rows] == [("36", "RuntimeError"), ("4", "Poison")]
    table = letters.dlq("list", "--reason", "NO SUCH", "--from-group", course.group)
    assert table.stdout.count("no such customer") == POISON
    assert table.stderr == f"{POISON} letters, open\n"
    chosen = json.loads(letters.dlq("list", "--json", "--error", "Poison").stdout.splitlines()[0])
    assert (chosen["topic"], chosen["group"]) == (course.topic, course.group)

    shown = letters.dlq("show", chosen["at"])
    assert shown.returncode == 0, shown.stderr
    for part in ("no such customer", f"from      {course.topic}[", "00000010  10 11", "tasks.py"):
        assert part in shown.stdout

    dry = letters.dlq("replay", "--error", "RuntimeError", "--dry-run")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert dry.stdout == (
        f"dry run: {TROUBLE} letters would be replayed to {course.topic} ({TROUBLE}); "
        "nothing was sent or marked\n"
    )
    assert (letters.sent_back(), letters.open()) == (0, POISON + TROUBLE)

    first = letters.dlq("replay", "--error", "RuntimeError", "--limit", "5", "--yes")
    assert (first.returncode, first.stdout) == (0, "5 letters replayed\n"), first.stderr
    rest = letters.dlq("replay", "--error", "RuntimeError", "--yes")
    assert (rest.returncode, rest.stdout) == (0, "31 letters replayed\n"), rest.stderr
    letters.service.until(lambda: course.done() == TROUBLE, "what was mended")
    originals: Counter[object] = Counter()
    replayed: Counter[object] = Counter()
    for message in read(course.bootstrap, course.topic):
        of = originals if message.offset() < course.sent[message.partition()] else replayed
        assert rounds(message) == (None if of is originals else b"1")
        if b"no such customer" not in dict(message.headers()).values():
            of[told(message)] += 1
    assert replayed == originals  # byte by byte, in its partition, and but a count of ours
    assert set(originals.values()) == {1}

    goes_round(letters)

    dropped = letters.dlq("drop", "--error", "Poison", "--yes")
    assert (dropped.returncode, dropped.stdout) == (0, f"{POISON} letters dropped\n")
    states = [
        json.loads(line)["state"]
        for line in letters.dlq("list", "--all", "--json").stdout.splitlines()
    ]
    assert states == ["done"] * (POISON + TROUBLE + 1)
    # Another group has no marks: what was dropped by mistake is found again.
    assert len(letters.dlq("list", "--json", "--group", "another").stdout.splitlines()) == 41
    assert letters.service.stop() == 0
    assert course.done() == TROUBLE
    assert letters.made() == POISON + TROUBLE + 1


def goes_round(letters: Letters) -> None:
    """One of those that nobody can handle is replayed, and comes back as one that was."""
    made = letters.made()
    again = letters.dlq("replay", "--error", "Poison", "--limit", "1", "--yes")
    assert again.returncode == 0, again.stderr
    letters.service.until(lambda: letters.made() > made, "a letter that comes back")
    open_ones = [json.loads(line) for line in letters.dlq("list", "--json").stdout.splitlines()]
    assert sorted(each["rounds"] for each in open_ones) == [0] * (POISON - 1) + [1]
    tired = letters.dlq("replay", "--dry-run", "--max-rounds", "1")
    assert tired.returncode == 1
    assert tired.stdout.startswith(f"dry run: {POISON - 1} letters would be replayed")
    assert "1 letter left alone: replayed 1 times or more" in tired.stderr
    assert "--max-rounds 2" in tired.stderr


def test_a_replay_to_another_topic_goes_by_the_key(
    letters: Letters, admin: Admin, group: str
) -> None:
    letters.trouble.touch()
    letters.make(tasks(10))
    assert letters.service.stop() == 0
    other = f"other-{group}"
    admin.create_topic(other, 1)
    done = letters.dlq("replay", "--to", other, "--yes")
    assert (done.returncode, done.stdout) == (0, "10 letters replayed\n"), done.stderr
    assert letters.sent_back() == letters.open() == 0
    moved = {told(message)[1:] for message in read(letters.course.bootstrap, other)}
    assert moved == {told(m)[1:] for m in read(letters.course.bootstrap, letters.course.topic)}


def test_an_interrupted_replay_goes_on_and_repeats_at_most_a_batch(letters: Letters) -> None:
    total = 3_000
    letters.trouble.touch()
    letters.make(tasks(total))
    assert letters.service.stop() == 0

    process = letters.replaying()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    sent = letters.sent_back()
    assert 0 < sent < total
    assert out == f"{sent:,} letters replayed\n"
    assert f"still open: {total - sent:,} letters" in err
    assert letters.open() == total - sent  # none is sent and unmarked

    process = letters.replaying()
    process.kill()
    process.communicate(timeout=60)
    open_now = letters.open()
    assert 0 < open_now < total - sent + 1
    unmarked = letters.sent_back() + open_now - total
    assert 0 <= unmarked <= BATCH

    rest = letters.dlq("replay", "--yes")
    assert (rest.returncode, rest.stdout) == (0, f"{open_now:,} letters replayed\n"), rest.stderr
    assert letters.open() == 0
    back = [
        message.value()
        for message in read(letters.course.bootstrap, letters.course.topic)
        if message.offset() >= total // 2
    ]
    assert len(set(back)) == total
    assert len(back) == total + unmarked


def test_what_cannot_be_done_is_said_with_its_exit_code(letters: Letters, admin: Admin) -> None:
    letters.trouble.touch()
    letters.make(tasks(3))
    assert letters.service.stop() == 0

    def said(code: int, *arguments: str) -> str:
        result = letters.service.command("dlq", *arguments)
        assert result.returncode == code, (arguments, result)
        assert not result.stdout.replace("0 letters replayed\n", "")
        assert "Traceback" not in result.stderr
        return result.stderr

    dead = letters.dead
    assert "topic nowhere does not exist" in said(1, "list", "nowhere")
    assert "no record at 0:99" in said(1, "show", dead, "0:99")
    assert "no terminal" in said(64, "replay", dead)
    away = said(1, "list", dead, "--bootstrap-servers", "127.0.0.1:1")
    assert "no broker answered within 10 s" in away
    assert "PENSTOCK_BOOTSTRAP_SERVERS" in away

    admin.delete_topic(letters.course.topic)
    gone = said(1, "replay", dead, "--yes")
    assert f"topic {letters.course.topic} does not exist: create it" in gone
    assert "the letter at " in gone
    assert "still open: 3 letters" in gone
    assert letters.open() == 3


def test_a_reader_that_goes_away_is_no_failure(letters: Letters) -> None:
    letters.trouble.touch()
    letters.make(tasks(2_000))
    listing = subprocess.Popen(
        [sys.executable, "-m", "penstock", "dlq", "list", letters.dead, "--json"],
        env=letters.service._environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert listing.stdout is not None
    assert listing.stdout.readline().startswith(b"{")
    listing.stdout.close()
    assert listing.wait(30) == 0
    assert listing.stderr is not None
    assert listing.stderr.read() == b""
    listing.stderr.close()


USER, PASSWORD = "ops", "right-horse"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Broker]:
    """A broker on which nothing is allowed that no ACL allows."""
    reason = have_broker()
    if reason is not None:
        unavailable("kafka", reason)
    with Broker(sasl_users={USER: PASSWORD}) as running:
        yield running


def test_the_rights_that_it_takes(
    guarded: Broker, make_service: Callable[..., Service], group: str, tmp_path: Path
) -> None:
    admin = Admin(guarded.bootstrap)
    for name in ("orders", "orders.dead"):
        admin.create_topic(name)
    trouble = tmp_path / "trouble"
    trouble.touch()
    options = {"retry": {"attempts": 1}, "then": ["dead_letter", "orders.dead"]}
    reader = Reader("orders", group, tmp_path / "ledger", trouble=trouble, options=options)
    sasl = {
        "bootstrap_servers": guarded.sasl_bootstrap,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_username": USER,
        "sasl_password": PASSWORD,
    }
    service = make_service(APP, env=environment(reader), **sasl)
    # What docs/dead-letters.md says the service needs ...
    admin.grant(USER, "read", "topic", "orders")
    admin.grant(USER, "read", "group", group)
    admin.grant(USER, "write", "topic", "orders.dead")
    service.start().until_ready()
    send(guarded.bootstrap, "orders", 1, [Task(0, b"k", b"v")] * 3)
    service.until(lambda: admin.end_offsets("orders.dead") == {0: 3}, "letters")
    assert service.stop() == 0

    # ... and the command.
    def refused(missing: str, *arguments: str) -> None:
        result = service.command("dlq", *arguments)
        assert (result.returncode, result.stdout.replace("0 letters replayed\n", "")) == (1, "")
        assert f"principal User:{USER}" in result.stderr
        assert missing in result.stderr
        assert PASSWORD not in result.stderr

    refused("READ on Group:penstock.dlq", "list", "orders.dead")
    admin.grant(USER, "describe", "group", "penstock.dlq")
    refused("READ and DESCRIBE on Topic:orders.dead", "list", "orders.dead")
    admin.grant(USER, "read", "topic", "orders.dead")
    assert "3 letters" in service.command("dlq", "list", "orders.dead").stderr
    admin.grant(USER, "write", "topic", "orders")
    refused("READ on Group:penstock.dlq", "replay", "orders.dead", "--yes")
    assert admin.end_offsets("orders") == {0: 3}  # what cannot be marked is not sent
    admin.grant(USER, "read", "group", "penstock.dlq")
    admin.revoke(USER, "write", "topic", "orders")
    refused("WRITE on Topic:orders", "replay", "orders.dead", "--yes")
    admin.grant(USER, "write", "topic", "orders")
    done = service.command("dlq", "replay", "orders.dead", "--yes")
    assert (done.returncode, done.stdout) == (0, "3 letters replayed\n"), done.stderr
    assert admin.end_offsets("orders") == {0: 6}
