"""What becomes of a record whose handler failed: tried again, put aside, or waited for.

Run it from the repository, with a broker on port 9092 (``make kafka``)::

    PENSTOCK_BOOTSTRAP_SERVERS=localhost:9092 penstock run examples/failures.py:app

``test_failures.py`` beside it tests all of this without Kafka.
"""

from pydantic import BaseModel

from penstock import App, Breaker, Poison, Retry, dead_letter

app = App()


class Payment(BaseModel):
    number: int
    card: str
    cents: int


class DeclinedError(Exception):
    """The bank says no, and will say so again."""


def charge(card: str, cents: int) -> None:
    """Stands for the bank: raises ``ConnectionError`` while it cannot be reached."""
    if card == "stolen":
        raise DeclinedError(card)
    print(f"charged {cents / 100:.2f} to {card}")


@app.subscribe(
    "payments",
    group="cashier",
    timeout=30.0,
    # Trying again helps when the bank cannot be reached, or takes too long ...
    retry=Retry(attempts=5, first=1.0, limit=60.0, on=(ConnectionError, TimeoutError)),
    # ... and whatever else is raised goes here at once, as do values that cannot be decoded.
    then=dead_letter("payments.dead"),
    # When half of the last 20 failed it is the bank, not the payments: wait for it.
    breaker=Breaker(share=0.5, window=20, pause=10.0),
)
def pay(payment: Payment) -> None:
    try:
        charge(payment.card, payment.cents)
    except DeclinedError as error:
        raise Poison(f"declined: {error}") from error
