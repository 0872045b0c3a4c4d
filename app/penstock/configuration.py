"""What ``penstock check`` prints: every setting as it takes effect for one application."""

from __future__ import annotations

import json
import re
from typing import Final

from penstock import settings as settings_module
from penstock.http.token import configured_token
from penstock.loading import load_app
from penstock.plan import plans

_SECRET: Final = re.compile("password|secret|token|credential|config", re.IGNORECASE)


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
    subscribed = {
        "PENSTOCK_GROUP_ID": "; ".join(plan.group for plan in every_plan),
        "PENSTOCK_TOPICS": "; ".join(",".join(plan.topics) or plan.reads for plan in every_plan),
        "PENSTOCK_CONCURRENCY": "; ".join(str(plan.concurrency) for plan in every_plan),
    }
    found = []
    for name, value, source in settings_module.effective(settings, app.settings):
        if source == "default" and name in subscribed:
            found.append((name, subscribed[name], "code"))
        elif name == "PENSTOCK_KAFKA_OPTIONS":
            found.append((name, _masked(settings.kafka_options), source))
        else:
            found.append((name, value, source))
    return found


def _masked(options: dict[str, object]) -> str:
    """Client options may carry credentials of their own (``sasl_jaas_config``)."""
    if not options:
        return "-"
    shown = {k: "********" if _SECRET.search(k) else v for k, v in options.items()}
    return json.dumps(shown, default=str)
