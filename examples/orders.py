"""Take orders from Kafka and note each one: the first Penstock service to read.

Run it from the repository, with a broker on port 9092 (``make kafka``)::

    PENSTOCK_BOOTSTRAP_SERVERS=localhost:9092 penstock run examples.orders:app

``make demo`` runs this very file and restarts it under load. ``LEDGER`` names the file that
the orders are noted in.
"""

import os
import time

from penstock import App, Record

# Unbuffered and appending: each note is one write, whole and in order, whoever else writes.
ledger = open(os.environ.get("LEDGER", "orders.ledger"), "ab", buffering=0)  # noqa: SIM115, PTH123 (open as long as the process)

app = App()


@app.subscribe("orders", group="billing")
def bill(order: Record) -> None:
    """Return = done; raise = not done, try again. Nothing else needs to be known of Kafka.

    Only when this has returned, here and for every earlier order of the partition, is the
    order's offset committed. A restart waits for it.
    """
    partition, number = (order.value or b"").split()[:2]
    time.sleep(0.001)  # the work: a payment provider is not asked in no time
    ledger.write(
        b"%s %s %d %d %.6f\n" % (partition, number, order.offset, os.getpid(), time.monotonic())
    )
