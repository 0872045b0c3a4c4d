"""``helm test``: ask the probes of every pod of the release until all say yes.

Arguments: the name that resolves to every pod, the port, and the seconds to keep asking.
Exits 0 when each pod answered each probe with 200, else 1, with what they answer instead.
"""
# ruff: noqa: INP001 (a script for `python3 -c`, in no package)

import http.client
import socket
import sys
import time

PROBES = ("/startupz", "/livez", "/readyz")


def ask(address: str, port: int, path: str) -> str:
    """What a probe says: ``200``, another status with its reasons, or why there is none."""
    connection = http.client.HTTPConnection(address, port, timeout=3)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error}"
    finally:
        connection.close()
    return "200" if answer.status == http.client.OK else f"{answer.status} {body}"


def pods(name: str, port: int) -> list[str]:
    """The addresses behind the name; none while it is too new to resolve."""
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(entry[4][0]) for entry in found})


def main(name: str, port: int, seconds: float) -> int:
    """Ask until everybody is well, or the time is over."""
    until = time.monotonic() + seconds
    while True:
        answers = {(pod, path): ask(pod, port, path) for pod in pods(name, port) for path in PROBES}
        well = bool(answers) and set(answers.values()) == {"200"}
        if well or time.monotonic() >= until:
            break
        time.sleep(1)
    for (pod, path), answer in answers.items():
        sys.stdout.write(f"{pod} {path} {answer}\n")
    if not answers:
        sys.stdout.write(f"{name} resolves to no pod: is one running?\n")
    return 0 if well else 1


sys.exit(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
