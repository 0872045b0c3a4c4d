"""Which engine a worker uses."""

from __future__ import annotations

from penstock.kafka.port import Connect, Engine, GiveUp, Rebalance
from penstock.plan import Plan


def instance_id(base: str | None, index: int) -> str | None:
    """The ``group.instance.id`` of one worker: ``billing-0``, ``billing-1`` and so on."""
    return None if base is None else f"{base}-{index}"


def connector(plan: Plan, index: int) -> Connect:
    """How worker ``index`` makes its consumer."""

    def connect(rebalance: Rebalance, timeout: float) -> Engine:
        # kafka-python takes a while to import; a worker says hello first.
        from penstock.kafka.kafka_python import KafkaPythonEngine  # noqa: PLC0415

        return KafkaPythonEngine(
            plan.settings,
            plan.topics,
            plan.group,
            instance_id(plan.settings.instance_id, index),
            rebalance,
            timeout,
            pattern=plan.pattern,
        )

    return connect


def seat(plan: Plan, index: int) -> GiveUp | None:
    """How worker ``index`` gives its seat up without a consumer; ``None`` if it has none."""
    instance = instance_id(plan.settings.instance_id, index)
    if instance is None:
        return None

    def give_up_seat(timeout: float) -> str | None:
        from penstock.kafka.seats import give_up  # noqa: PLC0415 (as above)

        return give_up(plan.settings, plan.group, instance, "", timeout)

    return give_up_seat
