"""A real Kafka broker for tests, the demo, the bench and `make kafka`.

`Broker` is Apache Kafka itself, in one small JVM.
"""

from .broker import Broker
from .classpath import have_broker
from .errors import BrokerError, BrokerStartFailed, BrokerTimeout, BrokerUnavailable
from .proxy import CutProxy

__all__ = [
    "Broker",
    "BrokerError",
    "BrokerStartFailed",
    "BrokerTimeout",
    "BrokerUnavailable",
    "CutProxy",
    "have_broker",
]
