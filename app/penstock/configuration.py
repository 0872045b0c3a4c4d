"""What ``penstock check`` prints: every setting as it takes effect for one application."""

from __future__ import annotations

import itertools

from penstock import cgroup
from penstock import settings as settings_module
from penstock.budget import Budget
from penstock.http.token import configured_token
from penstock.kafka import credentials
from penstock.loading import load_app
from penstock.memory import bound_of, shortfall
from penstock.plan import plans
from penstock.policy import Then


def rows(target: str) -> list[tuple[str, str, str]]:
    """``(NAME, value, source)`` of every setting, secrets masked.

    Group, topics and concurrency are told as they will be used, also where the code's
    ``subscribe`` decides them; of several subscriptions in turn.

    Raises:
        ConfigError: naming everything that is wrong.
    """
    app = load_app(target)
    every_plan = plans(app)
    settings = every_plan[0].settings
    configured_token(settings)
    credentials.check(settings)
    subscribed = {
        "PENSTOCK_GROUP_ID": "; ".join(plan.group for plan in every_plan),
        "PENSTOCK_TOPICS": "; ".join(",".join(plan.topics) or plan.reads for plan in every_plan),
        "PENSTOCK_CONCURRENCY": "; ".join(str(plan.concurrency) for plan in every_plan),
    }
    found = []
    for name, value, source in settings_module.effective(settings, app.settings):
        if source == "default" and name in subscribed:
            found.append((name, subscribed[name], "code"))
        else:
            found.append((name, value, source))
    return found


def memory(target: str) -> str:
    """What the service may take, in MB, as the sum that it is.

    Raises:
        ConfigError: as :func:`rows`.
    """
    every_plan = plans(load_app(target))
    return str(bound_of(every_plan[0].settings, subscriptions=len(every_plan)))


def notes(target: str) -> list[str]:
    """What will work, but perhaps not as meant; a sentence each.

    Raises:
        ConfigError: as :func:`rows`.
    """
    every_plan = plans(load_app(target))
    settings = every_plan[0].settings
    here = cgroup.find()
    reading = here.read() if here is not None else None
    short = shortfall(
        bound_of(settings, subscriptions=len(every_plan)),
        reading.limit if reading is not None else None,
        settings.memory_high,
    )
    found = [short] if short is not None else []
    for one, other in itertools.combinations(every_plan, 2):
        if one.group == other.group and one.pattern is not None and other.pattern is not None:
            found.append(
                f"handlers {one.name} and {other.name} read {one.reads} and {other.reads} in one "
                "group: of a topic that both match, each is given only a part of the records"
            )
    for plan in every_plan:
        given = plan.settings.drain_timeout
        left = Budget.of(given, now=0.0).handlers_left(0.0)
        if plan.policy.timeout is not None and plan.policy.timeout > left:
            found.append(
                f"handler {plan.name} may take {plan.policy.timeout:g} s (its timeout), and a "
                f"drain gives it {left:g}: a restart meanwhile may end with 2. Raise "
                f"PENSTOCK_DRAIN_TIMEOUT ({given:g} s), and the platform's grace with it"
            )
        if plan.policy.then.then is Then.STOP and plan.policy.retry.attempts is not None:
            found.append(
                f"handler {plan.name} stops the service at a record that failed "
                f"{plan.policy.retry.attempts} times: name then=dead_letter(…) or skip() if it "
                "is to go on"
            )
    return found
