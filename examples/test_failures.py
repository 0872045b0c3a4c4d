"""How to test a handler: ``failures.py`` beside it, without Kafka and without waiting.

pytest examples/test_failures.py
"""

import pytest

from examples import failures
from penstock import Exit
from penstock.letters import origin
from penstock.testing import Kit


class Bank:
    """In the place of ``charge``: notes what it is asked for, and may be down for a while."""

    def __init__(self) -> None:
        self.charged: list[int] = []
        self.down_until = 0.0
        self.kit = Kit(failures.app)

    def charge(self, card: str, cents: int) -> None:
        if self.kit.now < self.down_until:
            raise ConnectionError("no route to the bank")
        if card == "stolen":
            raise failures.DeclinedError(card)
        self.charged.append(cents)


@pytest.fixture
def bank(monkeypatch: pytest.MonkeyPatch) -> Bank:
    bank = Bank()
    monkeypatch.setattr(failures, "charge", bank.charge)
    return bank


def pay(kit: Kit, number: int, card: str = "mine") -> None:
    kit.send_json("payments", {"number": number, "card": card, "cents": number * 100})


def test_payments_are_charged_once_and_in_order(bank: Bank) -> None:
    for number in (1, 2, 3):
        pay(bank.kit, number)
    bank.kit.run()
    assert bank.charged == [100, 200, 300]
    assert bank.kit.committed() == 3


def test_a_declined_payment_is_put_aside_at_once_and_says_why(bank: Bank) -> None:
    pay(bank.kit, 1, card="stolen")
    pay(bank.kit, 2)
    bank.kit.run()
    [letter] = bank.kit.dead_letters("payments.dead")
    why = origin(letter.headers)
    assert why is not None
    assert (why.reason, why.attempts) == ("declined: stolen", 1)
    assert bank.charged == [200]


def test_what_is_no_payment_is_put_aside_too(bank: Bank) -> None:
    bank.kit.send("payments", b"hello")
    bank.kit.run()
    assert len(bank.kit.dead_letters()) == 1
    assert bank.charged == []


def test_a_short_outage_is_waited_for(bank: Bank) -> None:
    bank.down_until = 5.0
    pay(bank.kit, 1)
    bank.kit.run()
    assert bank.charged == [100]
    assert [t.at for t in bank.kit.tries] == [0, 1, 3, 7]


def test_a_long_outage_does_not_fill_the_dead_letters(bank: Bank) -> None:
    bank.down_until = 3600.0
    for partition in range(40):
        payment = {"number": partition, "card": "mine", "cents": 5}
        bank.kit.send_json("payments", payment, partition=partition)
    bank.kit.run()
    assert bank.kit.dead_letters() == []
    assert bank.charged == [5] * 40


def test_a_restart_in_the_middle_of_an_outage_charges_nobody_twice(bank: Bank) -> None:
    for number in (1, 2, 3):
        pay(bank.kit, number)
    bank.kit.run(until=lambda: len(bank.charged) == 1)
    bank.down_until = 20.0
    bank.kit.advance(10)
    assert bank.kit.restart() is Exit.RESTART
    bank.kit.run()
    assert bank.charged == [100, 200, 300]
