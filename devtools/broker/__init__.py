"""A real Kafka broker for tests, the demo, the bench and `make kafka`.

`Broker` is Apache Kafka itself in one small JVM, with a `CutProxy` to pull its network cable and
`Admin` to look inside. `MockBroker` is the fallback for machines of which `have_broker` says that
they cannot run it.
"""

from .admin import Admin, Group, Member
from .broker import Broker
from .classpath import have_broker
from .errors import BrokerError, BrokerStartFailed, BrokerTimeout, BrokerUnavailable
from .mock import MockBroker
from .proxy import CutProxy

__all__ = [
    "Admin",
    "Broker",
    "BrokerError",
    "BrokerStartFailed",
    "BrokerTimeout",
    "BrokerUnavailable",
    "CutProxy",
    "Group",
    "Member",
    "MockBroker",
    "have_broker",
]
