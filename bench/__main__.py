"""``python -m bench [NAME …]``, with the names below; all of them if none is named.

Each starts a broker and services of its own on loopback, stops by itself, and prints a table
in Markdown, ready for docs/benchmarks.md.
"""

from __future__ import annotations

import importlib
import platform
import sys
import time

NAMES = ("throughput", "kinds", "concurrency", "profile", "drain", "gap", "memory", "peers")


def main(argv: list[str]) -> int:
    """Run the named benchmarks."""
    names = argv or list(NAMES)
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 64
    print(f"Python {platform.python_version()}, {platform.machine()}")
    for name in names:
        began = time.monotonic()
        print(f"\n## {name}\n", flush=True)
        importlib.import_module(f"bench.{name}").main()
        print(f"\n({time.monotonic() - began:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
