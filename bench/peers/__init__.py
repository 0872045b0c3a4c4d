"""Penstock beside its peers: the same broker, the same records, each in its own environment.

The apps import :mod:`bench.peers.meter` from environments that hold nothing of this project's,
so this file must import nothing.
"""


def main() -> None:
    """All of it, as ``make bench ARGS=peers`` runs it."""
    from bench.peers.__main__ import run  # noqa: PLC0415 (see above)

    run([])
