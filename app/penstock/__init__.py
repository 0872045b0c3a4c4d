"""Kafka consumers that can be restarted on purpose.

Names are imported when they are first used (PEP 562): ``penstock run`` must hold signals, and
``penstock health`` answer a probe, before anything that costs is imported.
"""

TYPE_CHECKING = False  # typing's own would cost two milliseconds; type checkers know the name
if TYPE_CHECKING:
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

_HOMES = {
    "App": "app",
    "Batch": "batching",
    "Breaker": "breaker",
    "ConfigError": "errors",
    "Exit": "exits",
    "HandlerTimeout": "errors",
    "KafkaFailure": "errors",
    "Partition": "record",
    "PenstockError": "errors",
    "Poison": "errors",
    "Record": "record",
    "Retry": "policy",
    "dead_letter": "policy",
    "skip": "policy",
    "stop": "policy",
}


if not TYPE_CHECKING:  # or they would believe that every name is there

    def __getattr__(name: str) -> object:
        """Import what a public name stands for."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module  # noqa: PLC0415 (see above)

        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """What there is, whether imported yet or not."""
    return sorted({*globals(), *__all__})
