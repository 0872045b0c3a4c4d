"""For which offset of which log an offset map was made, so that it is believed for no other.

The map (:mod:`penstock.offset_map`) counts from a committed offset. Kafka keeps offset and text
side by side, and not everybody who writes one knows the other: MirrorMaker 2 translates the
offset and copies the text, a script restores the commits of a topic that was made anew, an
unclean election cuts a log that then grows again. So what goes to Kafka is
``penstock2:OFFSET:TOPIC:EPOCH:MAP``:

* ``OFFSET``, the committed offset that it counts from;
* ``TOPIC``, the topic's id as Kafka's tools show it (KIP-516), empty where brokers have none;
* ``EPOCH``, the leader epoch of the last record that was handed over (KIP-320), or of what an
  earlier owner had: no record that the map speaks of is of a later one; ``-1`` if not known.

The map is dropped unless offset and topic are the same, and unless the log still has records of
that epoch up to the last one that the map calls finished (:func:`cut_off`). An epoch that has
merely advanced, by an election that lost nothing, changes neither.

The first form, ``penstock1:MAP``, named nothing: it is never believed, nor written any more.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from penstock.offset_map import LIMIT, NOTHING, BadMap, Beyond, decode

_FIRST: Final = "penstock1:"
_PREFIX: Final = "penstock2:"


class Seal(NamedTuple):
    """What a map was made for."""

    offset: int
    #: The topic's id, empty where it is not known.
    topic: str
    #: No record that the map speaks of is of a later epoch; -1 where that is not known.
    epoch: int


class Sealed(NamedTuple):
    """A map, still as text, and what it was made for."""

    seal: Seal
    text: str


def seal(text: str, made_for: Seal) -> str:
    """What to commit beside ``made_for.offset``; empty if ``text`` says nothing."""
    if not text:
        return ""
    return f"{_PREFIX}{made_for.offset}:{made_for.topic}:{made_for.epoch}:{text}"


def unseal(metadata: str) -> Sealed | None:
    """What was committed; ``None`` for nothing, and for what is somebody else's.

    Raises:
        BadMap: ours, but damaged, or of the first form, which cannot be trusted.
    """
    if metadata.startswith(_FIRST):
        raise BadMap("it is of a form that does not say which offset and log it was made for")
    if not metadata.startswith(_PREFIX):
        return None
    if len(metadata) > LIMIT:
        raise BadMap(f"{len(metadata)} bytes, {LIMIT} at most")
    try:
        offset, topic, epoch, text = metadata[len(_PREFIX) :].split(":", 3)
        return Sealed(Seal(int(offset), topic, int(epoch)), text)
    except ValueError as error:
        raise BadMap("it does not name an offset, a topic and an epoch") from error


def told(offset: int, metadata: str) -> Beyond:
    """What ``metadata`` says beside ``offset``, if the log is the one that it was made for.

    For whoever looks at a group from outside, and knows that the log is.

    Raises:
        BadMap: as :func:`unseal`; or it was made for another offset.
    """
    sealed = unseal(metadata)
    if sealed is None:
        return NOTHING
    if sealed.seal.offset != offset:
        raise BadMap(f"it was made for offset {sealed.seal.offset}, not for {offset}")
    return decode(offset, sealed.text)


def mismatch(made_for: Seal, *, offset: int, topic: str, epoch: int) -> str | None:
    """Why a map is not for the ``offset`` that was committed in this ``topic``, if it is not.

    ``epoch`` is the one committed beside the offset, -1 if none was: it is that of a record
    before the offset, so a later one than the map's contradicts it.
    """
    if made_for.offset != offset:
        return f"it was made for offset {made_for.offset}, and the group's is {offset}"
    if made_for.topic != topic:
        made, now = (each or "unknown" for each in (made_for.topic, topic))
        return f"it was made for the topic of id {made}, and this one's is {now}"
    if epoch > made_for.epoch:
        return f"it was made at leader epoch {made_for.epoch}, and the commit is of {epoch}"
    return None


class End(NamedTuple):
    """A leader's answer to "where does this epoch end in your log?" (OffsetForLeaderEpoch).

    The latest epoch that is not later than the one asked for, and the offset after its last
    record; -1 both if there is none.
    """

    epoch: int
    offset: int


def cut_off(made_for: Seal, farthest: int, end: End | None) -> str | None:
    """Why the log is not the one of which the map says that ``farthest`` is finished, if so.

    ``end``: of the map's epoch; ``None`` if no leader could be asked.
    """
    if made_for.epoch < 0:
        return None  # nothing is known of epochs here, and nothing contradicts the map
    if end is None:
        return f"no leader could tell whether the log still has epoch {made_for.epoch}"
    if end.epoch != made_for.epoch:
        return f"the log has no records of leader epoch {made_for.epoch} (any more)"
    if end.offset <= farthest:
        return (
            f"the log was cut off: leader epoch {made_for.epoch} ends at {end.offset}, and the "
            f"map reaches to {farthest}"
        )
    return None
