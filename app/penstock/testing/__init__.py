"""Run handlers against records in memory, with the code that a service runs them with.

    def test_a_declined_card_goes_to_the_dead_letters() -> None:
        kit = Kit(app)
        declined = kit.send("orders", b'{"card": "declined"}')
        kit.run()
        [letter] = kit.dead_letters("orders.dead")
        assert letter.value == declined.value

Retries, dead letters, order, batches, the circuit breaker, commits and their offset map are
those of a service. Kafka, threads and the clock are not: topics are lists, and time is
virtual, so an hour of back-off is over at once.
"""

from penstock.testing.calls import Try
from penstock.testing.errors import KitError
from penstock.testing.kit import Kit
from penstock.testing.virtual import EPOCH

__all__ = ["EPOCH", "Kit", "KitError", "Try"]
