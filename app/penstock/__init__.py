"""Kafka consumers that can be restarted on purpose."""

from penstock.app import App
from penstock.errors import ConfigError, KafkaFailure, PenstockError
from penstock.exits import Exit
from penstock.record import Partition, Record

__version__ = "0.1.0"

__all__ = [
    "App",
    "ConfigError",
    "Exit",
    "KafkaFailure",
    "Partition",
    "PenstockError",
    "Record",
    "__version__",
]
