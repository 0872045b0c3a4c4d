"""`python -m devtools.broker`: a Kafka broker in the foreground, for people."""

from __future__ import annotations

import argparse
import os
import queue
import signal
import sys

from .admin import Admin
from .broker import Broker
from .errors import BrokerError, BrokerUnavailable

DEFAULT_PORT = 9092
"""Where people and their tools look for Kafka."""

TOPIC = "orders"
"""What the README's first handler reads."""

_ALIVE_CHECK_INTERVAL = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Run a broker until INT or TERM; return 0, or 1 when there is none or it died."""
    parser = argparse.ArgumentParser(prog="python -m devtools.broker", description=__doc__)
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="port to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--proxy",
        action="store_true",
        help="also offer an address whose network is cut and healed by signal USR1",
    )
    options = parser.parse_args(arguments)
    # The handlers only record; TERM while the broker still starts is acted upon when it is up.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda received, _frame: signals.put(received))
    broker = Broker(port=options.port)
    try:
        with broker:
            Admin(broker.bootstrap).create_topic(TOPIC, 3)
            _explain(broker, proxy=options.proxy)
            return _serve(broker, signals, proxy=options.proxy)
    except BrokerUnavailable as why:
        print(f"cannot run Kafka here: {why.reason}", file=sys.stderr)
    except BrokerError as error:
        print(error, file=sys.stderr)
    return 1


def _explain(broker: Broker, *, proxy: bool) -> None:
    print(f"Kafka is ready at {broker.bootstrap} (Ctrl-C ends it and forgets its data)")
    print(f"  export PENSTOCK_BOOTSTRAP_SERVERS={broker.bootstrap}")
    print(f"It has a topic {TOPIC!r}; to send a record there, from another terminal:")
    client = f"{sys.executable} -m kafka.producer -b {broker.bootstrap}"
    print(f"  echo 'a first order' | {client} -t {TOPIC}")
    if proxy:
        print("or, through a proxy that can cut the network:")
        print(f"  export PENSTOCK_BOOTSTRAP_SERVERS={broker.proxied_bootstrap}")
        print(f"  kill -USR1 {os.getpid()}    # cut; once more: heal")
    sys.stdout.flush()


def _serve(broker: Broker, signals: queue.SimpleQueue[int], *, proxy: bool) -> int:
    while broker.alive:
        try:
            received = signals.get(timeout=_ALIVE_CHECK_INTERVAL)
        except queue.Empty:
            continue
        if received != signal.SIGUSR1:
            broker.stop()
            return 0
        if proxy:
            _toggle(broker)
    print(f"the broker died; the end of its log:\n{broker.log_tail()}", file=sys.stderr)
    return 1


def _toggle(broker: Broker) -> None:
    if broker.proxy.is_cut:
        broker.proxy.heal()
        print("network healed", flush=True)
    else:
        broker.proxy.cut()
        print("network cut", flush=True)


if __name__ == "__main__":
    sys.exit(main())
