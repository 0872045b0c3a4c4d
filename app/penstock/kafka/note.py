"""What of a commit is believed: the text beside an offset is for that offset of that log only.

Offset, topic and the commit's own epoch are compared with what the text names; whether the log
still has the records is asked of the partition's leader. See :mod:`penstock.map_seal`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import structlog
from kafka import errors as k
from kafka.structs import OffsetAndMetadata

from penstock import map_seal, offset_map
from penstock.kafka.epochs import Epochs
from penstock.kafka.leaders import epoch_ends
from penstock.map_seal import End, Seal
from penstock.offset_map import BadMap
from penstock.offsets import Position

log = structlog.get_logger("penstock.kafka")

_EPOCHS_SINCE: Final = (2, 4)


def topic_id(cluster: Any, topic: str) -> str:
    """The topic's id as Kafka's tools show it; empty where brokers have none (KIP-516)."""
    found = cluster.topic_id(topic)
    if found is None or not found.int:
        return ""
    return base64.urlsafe_b64encode(found.bytes).decode().rstrip("=")


def tells_epochs(manager: Any) -> bool:
    """Whether leaders' epochs can be relied on: from Kafka 2.4 on, as in the client itself.

    Where not, records' epochs say nothing that could be asked about later: they are not noted.
    """
    version = manager.broker_version
    return version is None or tuple(version) >= _EPOCHS_SINCE


class Log:
    """The log that a partition was when it came: what commits of it name."""

    __slots__ = ("_told", "epochs", "topic")

    def __init__(self, topic: str, epochs: Epochs | None = None, *, told: bool = True) -> None:
        """``told``: whether this cluster tells of epochs (:func:`tells_epochs`)."""
        #: The topic's id, empty where brokers have none.
        self.topic = topic
        self.epochs = Epochs() if epochs is None else epochs
        self._told = told

    def saw(self, records: Sequence[Any]) -> None:
        """These are handed over."""
        if self._told:
            self.epochs.saw(records)

    def committable(self, at: Position, read_to: Any = None) -> Any:
        """The position as Kafka takes it.

        ``read_to``: where the client is; what it read before may be no record that was handed
        over, a transaction's marker of a later epoch.
        """
        epoch = self.epochs.before(at.offset)
        if self._told and read_to is not None and read_to.offset == at.offset:
            epoch = max(epoch, read_to.leader_epoch)
        made_for = Seal(at.offset, self.topic, max(epoch, self.epochs.highest))
        return OffsetAndMetadata(at.offset, map_seal.seal(at.metadata, made_for), epoch)


class Came(NamedTuple):
    """What was found out about a partition."""

    position: Position
    log: Log
    #: Where the client is to begin; with an epoch, so that it sees whether the log was cut off.
    seek: Any
    #: Why the text beside the offset is not believed.
    complaint: str | None = None
    #: Whether the text names another topic, so that the offset is one of another log, too.
    elsewhere: bool = False


async def believe(
    manager: Any, committed: Mapping[Any, Any], seconds: float, *, last: bool = False
) -> dict[Any, Came]:
    """What of these commits is believed. Runs on the client's I/O thread.

    Partitions of which no leader could tell within ``seconds`` are not in the answer. Nothing
    can be read there either: they are to be asked for again. ``last``: often enough; what no
    leader tells is not believed.
    """
    cluster, told = manager.cluster, tells_epochs(manager)
    notes = {tp: Note(at, topic_id(cluster, tp.topic), told) for tp, at in committed.items()}
    for tp, note in list(notes.items()):
        if note.sealed is not None and cluster.leader_for_partition(tp) is None:
            cluster.request_update()  # nothing is known of the topic yet, its id least of all
            del notes[tp]
    for _ in range(2):  # for the maps, then for offsets whose map turned out to be of no help
        leading = cluster.leader_epoch_for_partition
        asked = {tp: note.asks(leading(tp)) for tp, note in notes.items()}
        asked = {tp: epoch for tp, epoch in asked.items() if epoch >= 0}
        try:
            ends: Mapping[Any, End | None] = (
                await epoch_ends(manager, asked, seconds) if told else {}
            )
        except k.KafkaError as error:
            log.warning("leaders do not tell where an epoch ends", error=str(error))
            for tp in asked:
                notes[tp].answer(None)
            continue
        for tp in asked:
            if tp in ends or last or not told:
                notes[tp].answer(ends.get(tp))
            else:
                del notes[tp]
    return {tp: note.came() for tp, note in notes.items()}


class Note:
    """One partition's commit, while it is found out what of it can be believed."""

    def __init__(self, committed: Any, topic: str, told: bool) -> None:
        self._told = told
        self._offset: int = committed.offset
        epoch = committed.leader_epoch if told else None
        self._epoch = -1 if epoch is None else epoch
        self._topic = topic
        self._confirmed = False
        self._farthest = -1
        self._elsewhere = False
        self.complaint: str | None = None
        self.sealed: map_seal.Sealed | None = None
        try:
            self.sealed = map_seal.unseal(committed.metadata or "")
            if self.sealed is not None:
                named = self.sealed.seal.topic
                self._elsewhere = bool(named and topic and named != topic)
                self._farthest = offset_map.decode(*self._claimed()).farthest
                self.complaint = map_seal.mismatch(
                    self.sealed.seal, offset=self._offset, topic=topic, epoch=self._epoch
                )
        except BadMap as error:
            self.complaint = str(error)
        self._believed = self.sealed is not None and self.complaint is None

    def _claimed(self) -> tuple[int, str]:
        assert self.sealed is not None
        return self.sealed.seal.offset, self.sealed.text

    def asks(self, leader_epoch: int | None) -> int:
        """The epoch whose end in the log is to be asked for; -1 for none.

        ``leader_epoch``: of the leader, as far as the client knows. A commit of the same was not
        cut off; and should there be a later one, the client validates its position by itself.
        """
        if self._confirmed:
            return -1
        if self._believed and self.sealed is not None and self.sealed.seal.epoch >= 0:
            return self.sealed.seal.epoch
        return -1 if self._epoch == leader_epoch else self._epoch

    def answer(self, end: End | None) -> None:
        """A leader told; ``None``: none of this cluster does."""
        if self._believed and self.sealed is not None:
            self.complaint = map_seal.cut_off(self.sealed.seal, self._farthest, end)
            self._believed = self.complaint is None
            self._confirmed = self._believed
            return
        self._confirmed = True
        if end is None or end.epoch < 0:
            # To the client, which validates by itself, this means "begin anew", under
            # auto_offset_reset=latest behind everything that there is.
            self._epoch = -1

    def came(self) -> Came:
        """What is believed."""
        text, highest = "", -1
        if self._believed and self.sealed is not None:
            text, highest = self.sealed.text, self.sealed.seal.epoch
        return Came(
            Position(self._offset, text),
            Log(self._topic, Epochs(self._epoch, highest), told=self._told),
            OffsetAndMetadata(self._offset, "", self._epoch),
            self.complaint,
            self._elsewhere,
        )
