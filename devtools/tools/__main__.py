"""``python -m devtools.tools``: build the Go tools of the platform tests into ``.cache``.

build   build what is missing or out of date (`make tools`)
wait    wait for a build that is under way elsewhere
"""

from __future__ import annotations

import sys

from devtools.tools.build import BuildFailed, build, wait


def main(arguments: list[str]) -> int:
    """Returns 0, 1 when a build failed, 64 for anything else."""
    match arguments:
        case ["build"]:
            try:
                build()
            except BuildFailed as failure:
                print(f"tools: {failure}", file=sys.stderr)
                return 1
        case ["wait"]:
            wait()
        case _:
            print(__doc__)
            return 64
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
