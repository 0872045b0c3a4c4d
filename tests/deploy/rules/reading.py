"""Rules and queries as text: which alerts there are, and which series they look at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from penstock.telemetry import catalog

#: What chart and k8s/ replace to scope the rules to one release.
ANCHOR: Final = 'container="penstock"'

#: What a scrape adds to a target's own labels.
TARGET: Final = frozenset({"namespace", "pod", "container", "job", "instance"})

_FIXTURE: Final = Path(__file__).with_name("kube-state-metrics.txt")
_SELECTOR: Final = re.compile(
    r"(?<![\w\"$])(?:(?P<name>(?:penstock|kube)_[a-z_]+|up|ALERTS)\b(?!:)"
    r"(?P<labels>\{[^{}]*\})?|(?P<any>\{__name__=~[^{}]*\}))"
)
_MATCHER: Final = re.compile(r'(\w+)(=~|!~|!=|=)(?:"([^"]*)"|%q)')


@dataclass(frozen=True, slots=True)
class Selector:
    """One series selector; ``matchers`` are (label, operator, value), without ``__name__``."""

    text: str
    names: tuple[str, ...]
    matchers: tuple[tuple[str, str, str], ...]

    @property
    def anchored(self) -> bool:
        """Whether the chart can scope it."""
        return ANCHOR in self.text


def selectors(query: str) -> list[Selector]:
    """Every series selector of a PromQL text, from left to right."""
    found = []
    for match in _SELECTOR.finditer(query):
        pairs = _MATCHER.findall(match["labels"] or match["any"] or "")
        if match["name"]:
            names: tuple[str, ...] = (match["name"],)
        else:
            pattern = next(value for label, _, value in pairs if label == "__name__")
            names = tuple(pattern.replace("(init_)?", word) for word in ("", "init_"))
        matchers = tuple(pair for pair in pairs if pair[0] != "__name__")
        found.append(Selector(match[0], names, matchers))
    return found


def ksm_labels() -> dict[str, set[str]]:
    """Metric → labels, as kube-state-metrics gives them."""
    found: dict[str, set[str]] = {}
    for line in _FIXTURE.read_text().splitlines():
        if line[0] != "#":
            name, _, rest = line.partition("{")
            found.setdefault(name, set()).update(re.findall(r'(\w+)="', rest))
    return found


def own_labels() -> dict[str, set[str]]:
    """Series name → labels of everything that a service exports."""
    found: dict[str, set[str]] = {}
    for metric in catalog.METRICS:
        labels = set(metric.labels)
        if metric.kind == "histogram":
            found[f"{metric.name}_bucket"] = labels | {"le"}
            found[f"{metric.name}_sum"] = found[f"{metric.name}_count"] = labels
        else:
            found[metric.name] = labels
    return found


def known_values(name: str, label: str) -> set[str] | None:
    """The values that a label of our own can have; None where they are open."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    for metric in catalog.METRICS:
        if metric.name in (name, base) and label in metric.labels and metric.known:
            return {values[metric.labels.index(label)] for values in metric.known}
    return None


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert of a rules file."""

    name: str
    expr: str
    severity: str
    annotations: dict[str, str]

    @property
    def queries(self) -> list[str]:
        """The expression, and what the annotations look up."""
        looked_up = re.findall(r"printf\s*`([^`]+)`", "\n".join(self.annotations.values()))
        return [self.expr, *looked_up]

    @property
    def selectors(self) -> list[Selector]:
        """Every series that it looks at."""
        return [selector for query in self.queries for selector in selectors(query)]


def alerts(rules: str) -> Iterator[Alert]:
    """The alerts of a rules file, in its order."""
    for group in yaml.safe_load(rules)["groups"]:
        for rule in group["rules"]:
            severity = rule["labels"]["severity"]
            yield Alert(rule["alert"], rule["expr"], severity, rule["annotations"])
