"""The seat in the group: does this member leave, or keep its place for whoever comes back?

A static member (KIP-345, ``group.instance.id``) that comes back within the session timeout
gets its partitions again without a rebalance. Keeping a seat that nobody returns to is worse
than leaving: its partitions stand still for the whole session timeout.
"""

from __future__ import annotations

from enum import StrEnum


class Seat(StrEnum):
    """What happens to the membership when the consumer closes."""

    KEEP = "keep"
    LEAVE = "leave"


def seat_after(
    *, static: bool, restart: bool, held: bool = False, stable_identity: bool = False
) -> Seat:
    """Decide the seat.

    ``static``: the member has a ``group.instance.id``.
    ``restart``: the process comes back in the same place (in-place reload, exit 4 in the
    same container); a stop never comes back.
    ``held``: asked for by a preStop hook. The *pod* goes, so the identity returns only where
    it outlives the pod (``stable_identity``: StatefulSet, systemd).

    A dynamic member always leaves: its identity is made anew at each join, so a seat left
    behind only delays the others.
    """
    if not static or not restart:
        return Seat.LEAVE
    if held and not stable_identity:
        return Seat.LEAVE
    return Seat.KEEP
