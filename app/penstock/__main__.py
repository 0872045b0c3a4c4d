"""Where the ``penstock`` command and ``python -m penstock`` begin.

The first instructions of a service: signals are held before anything that costs is imported,
because until then a stop is a death, or, for PID 1, nothing at all.
"""

import sys

from penstock import held, streams


def main() -> int:
    """Run the command line of this process; returns the exit status."""
    if sys.argv[1:2] == ["run"]:
        held.hold()
    streams.open_missing()
    from penstock import cli  # noqa: PLC0415 (see above)

    try:
        return cli.main()
    finally:
        held.release()  # a bad command line never came to install handlers


if __name__ == "__main__":
    sys.exit(main())
