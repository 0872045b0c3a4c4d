"""Kafka consumers that can be restarted on purpose."""

from penstock.app import App
from penstock.batching import Batch
from penstock.breaker import Breaker
from penstock.errors import ConfigError, HandlerTimeout, KafkaFailure, PenstockError, Poison
from penstock.exits import Exit
from penstock.policy import Retry, dead_letter, skip, stop
from penstock.record import Partition, Record

__version__ = "0.1.0"

__all__ = [
    "App",
    "Batch",
    "Breaker",
    "ConfigError",
    "Exit",
    "HandlerTimeout",
    "KafkaFailure",
    "Partition",
    "PenstockError",
    "Poison",
    "Record",
    "Retry",
    "__version__",
    "dead_letter",
    "skip",
    "stop",
]
