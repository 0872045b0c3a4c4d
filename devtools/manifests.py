"""Writes every manifest that is made from something else (`make manifests`).

The dashboard (:mod:`devtools.dashboard`), the generated parts of the chart
(:mod:`devtools.chart`), and what `k8s/` copies from them: alerts and dashboard. ``--check`` only
tells (exit 1) what has drifted.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Final

from devtools import chart, dashboard

ROOT: Final = Path(__file__).resolve().parent.parent
_FILES: Final = chart.CHART / "files"
_MONITORING: Final = ROOT / "k8s" / "components" / "monitoring"

_RULE: Final = """\
# A copy of the chart's files/rules.yaml, written by `make manifests`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: penstock
  labels:
    app.kubernetes.io/name: penstock
    app.kubernetes.io/instance: penstock
spec:
"""


def prometheus_rule() -> str:
    """The rules as a PrometheusRule, for every Penstock service that Prometheus sees."""
    rules = (_FILES / "rules.yaml").read_text()
    return _RULE + textwrap.indent(rules[rules.index("groups:") :], "  ")


def generated() -> dict[Path, str]:
    """Every copy with what it should hold."""
    return {
        _MONITORING / "prometheusrule.yaml": prometheus_rule(),
        _MONITORING / "dashboard.json": (_FILES / "dashboard.json").read_text(),
    }


def main(argv: list[str]) -> int:
    """Rewrite, or with ``--check`` tell."""
    check = "--check" in argv
    # The sources first: what is copied from them has to be the new one.
    drifted = dashboard.main(argv) | chart.main(argv)
    for path, text in generated().items():
        if not path.exists() or path.read_text() != text:
            drifted = 1
            if not check:
                path.write_text(text)
            print(f"{'drifted' if check else 'rewritten'}: {path.relative_to(ROOT)}")
    return drifted if check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
