"""What of a commit is believed, when leaders answer, do not answer, or will never answer."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from kafka import TopicPartition
from kafka import errors as k
from kafka.structs import OffsetAndMetadata

from penstock import offset_map
from penstock.kafka import note
from penstock.kafka.note import Came, Log, believe, topic_id
from penstock.map_seal import End, Seal, seal
from penstock.offsets import Position

ZERO, ONE = TopicPartition("orders", 0), TopicPartition("orders", 1)
ID = uuid.UUID(int=2**100 + 1)
MAP = offset_map.encode(4, {6, 9})


class Cluster:
    """What the client knows of the cluster."""

    def __init__(self, *, led: bool = True, found: uuid.UUID | None = ID, epoch: int = 3) -> None:
        self.led = led
        self.found = found
        self.epoch = epoch
        self.updates = 0

    def topic_id(self, _topic: str) -> uuid.UUID | None:
        return self.found

    def leader_for_partition(self, _tp: TopicPartition) -> int | None:
        return 1 if self.led else None

    def leader_epoch_for_partition(self, _tp: TopicPartition) -> int:
        return self.epoch

    def request_update(self) -> None:
        self.updates += 1


class Manager:
    def __init__(self, cluster: Cluster, version: tuple[int, int] | None = (4, 3)) -> None:
        self.cluster = cluster
        self.broker_version = version


class Leaders:
    """Stands in for the requests; what they answer on a real broker: tests/integration."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[dict[Any, End] | k.KafkaError] = []
        self.asked: list[dict[Any, int]] = []
        monkeypatch.setattr(note, "epoch_ends", self.epoch_ends)

    async def epoch_ends(self, _manager: Any, asked: Mapping[Any, int], _s: float) -> Any:
        if not asked:
            return {}
        self.asked.append(dict(asked))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def leaders(monkeypatch: pytest.MonkeyPatch) -> Leaders:
    return Leaders(monkeypatch)


def made(epoch: int, topic: str | None = None, at: int = 4) -> str:
    return seal(MAP, Seal(at, topic_id(Cluster(), "orders") if topic is None else topic, epoch))


def ask(
    cluster: Cluster,
    committed: Mapping[Any, Any],
    *,
    version: tuple[int, int] = (4, 3),
    last: bool = False,
) -> dict[Any, Came]:
    answer = believe(Manager(cluster, version), committed, 1.0, last=last)
    try:
        answer.send(None)
    except StopIteration as done:
        found: dict[Any, Came] = done.value
        return found
    raise AssertionError("it waits for something")


def test_a_map_is_believed_when_the_log_has_its_records(leaders: Leaders) -> None:
    leaders.answers = [{ZERO: End(2, 10)}]
    [came] = ask(Cluster(), {ZERO: OffsetAndMetadata(4, made(2), 1)}).values()
    assert leaders.asked == [{ZERO: 2}]
    assert (came.position, came.complaint) == (Position(4, MAP), None)
    assert came.seek == OffsetAndMetadata(4, "", 1)
    assert (came.log.epochs.before(4), came.log.epochs.highest) == (1, 2)


def test_those_whose_leader_does_not_answer_are_asked_for_again(leaders: Leaders) -> None:
    leaders.answers = [{ONE: End(2, 10)}]
    at = OffsetAndMetadata(4, made(2), 2)
    assert set(ask(Cluster(), {ZERO: at, ONE: at})) == {ONE}


def test_those_whose_leader_never_answers_do_not_stand_still_for_ever(leaders: Leaders) -> None:
    leaders.answers = [{}, {}]
    [came] = ask(Cluster(), {ZERO: OffsetAndMetadata(4, made(2), 2)}, last=True).values()
    assert came.position == Position(4)
    assert "no leader could tell" in (came.complaint or "")


def test_brokers_that_tell_of_no_epochs_are_not_asked_for_any(leaders: Leaders) -> None:
    """Before 2.4; librdkafka's mock cluster ends the connection at such a question."""
    at = {
        ZERO: OffsetAndMetadata(4, made(-1), 0),
        ONE: OffsetAndMetadata(4, made(2), 0),
    }
    came = ask(Cluster(epoch=-1), at, version=(2, 3))
    assert leaders.asked == []
    assert (came[ZERO].position, came[ZERO].complaint) == (Position(4, MAP), None)
    assert came[ZERO].seek == OffsetAndMetadata(4, "", -1)
    assert came[ONE].position == Position(4)
    log = came[ZERO].log
    log.saw([OffsetAndMetadata(4, "", 0)])
    client = OffsetAndMetadata(5, "", 0)
    assert log.committable(Position(5, MAP), client).leader_epoch == -1
    assert ":-1:" in log.committable(Position(5, MAP), client).metadata


def test_what_is_of_a_topic_that_is_not_known_yet_is_asked_for_again(leaders: Leaders) -> None:
    cluster = Cluster(led=False, found=None)
    committed = {ZERO: OffsetAndMetadata(4, made(2), -1), ONE: OffsetAndMetadata(4, "", -1)}
    assert set(ask(cluster, committed)) == {ONE}
    assert (cluster.updates, leaders.asked) == (1, [])


def test_leaders_that_will_never_tell_cost_the_map_and_not_the_offset(leaders: Leaders) -> None:
    leaders.answers = [k.UnsupportedVersionError(), k.UnsupportedVersionError()]
    [came] = ask(Cluster(), {ZERO: OffsetAndMetadata(4, made(2), 1)}).values()
    assert came.position == Position(4)
    assert "no leader could tell" in (came.complaint or "")
    assert came.seek == OffsetAndMetadata(4, "", -1)


def test_an_offset_is_looked_at_by_itself_once_its_map_is_dropped(leaders: Leaders) -> None:
    leaders.answers = [{ZERO: End(2, 7)}, {ZERO: End(1, 5)}]
    [came] = ask(Cluster(), {ZERO: OffsetAndMetadata(4, made(2), 1)}).values()
    assert leaders.asked == [{ZERO: 2}, {ZERO: 1}]
    assert came.position == Position(4)
    assert "ends at 7, and the map reaches to 9" in (came.complaint or "")
    assert came.seek == OffsetAndMetadata(4, "", 1)


def test_nobody_is_asked_about_an_offset_of_the_present_leader(leaders: Leaders) -> None:
    [came] = ask(Cluster(epoch=3), {ZERO: OffsetAndMetadata(4, "", 3)}).values()
    assert leaders.asked == []
    assert came.seek == OffsetAndMetadata(4, "", 3)


def test_an_epoch_that_the_log_never_had_is_left_out(leaders: Leaders) -> None:
    leaders.answers = [{ZERO: End(-1, -1)}]
    [came] = ask(Cluster(), {ZERO: OffsetAndMetadata(4, "", 7)}).values()
    assert (came.position, came.seek) == (Position(4), OffsetAndMetadata(4, "", -1))


def test_brokers_without_ids_and_records_without_epochs_contradict_nothing(
    leaders: Leaders,
) -> None:
    """As a mock cluster is: only the offset is left to compare."""
    cluster = Cluster(found=None, epoch=-1)
    at = {
        ZERO: OffsetAndMetadata(4, made(-1, ""), -1),
        ONE: OffsetAndMetadata(3, made(-1, ""), -1),
    }
    came = ask(cluster, at)
    assert leaders.asked == []
    assert (came[ZERO].position, came[ZERO].complaint) == (Position(4, MAP), None)
    assert came[ONE].position == Position(3)
    assert "made for offset 4" in (came[ONE].complaint or "")


@pytest.mark.parametrize("metadata", ["penstock1:UgECBA==", "penstock2:4:x", made(2) + "!"])
def test_a_damaged_text_is_complained_of(leaders: Leaders, metadata: str) -> None:
    [came] = ask(Cluster(), {ZERO: OffsetAndMetadata(4, metadata, -1)}).values()
    assert came.position == Position(4)
    assert came.complaint


def test_somebody_elses_text_is_not(leaders: Leaders) -> None:
    [came] = ask(Cluster(), {ZERO: OffsetAndMetadata(4, "consumed by me", None)}).values()
    assert (came.position, came.complaint) == (Position(4), None)


def test_a_map_of_another_topic_says_that_the_offset_is_of_another_log(leaders: Leaders) -> None:
    [came] = ask(Cluster(), {ZERO: OffsetAndMetadata(4, made(2, "other"), -1)}).values()
    assert came.elsewhere


def test_a_commit_is_of_the_epoch_of_what_was_read_before_it() -> None:
    log = Log("id")
    assert log.committable(Position(4)) == OffsetAndMetadata(4, "", -1)
    marker = OffsetAndMetadata(5, "", 6)
    assert log.committable(Position(5), marker) == OffsetAndMetadata(5, "", 6)
    assert log.committable(Position(4), marker) == OffsetAndMetadata(4, "", -1)
    text = log.committable(Position(5, MAP), marker).metadata
    assert text == f"penstock2:5:id:6:{MAP}"
