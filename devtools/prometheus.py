"""A real Prometheus on loopback, for tests that ask it about real services.

It scrapes every second and evaluates rules every second, so that an alert is a matter of
seconds; what it is asked is HTTP, as Grafana and Alertmanager would.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from devtools.service import free_port


class Prometheus:
    """One ``prometheus`` process with static targets: port → labels."""

    def __init__(
        self,
        tool: Path,
        directory: Path,
        targets: Mapping[int, Mapping[str, str]],
        rules: str = "groups: []",
    ) -> None:
        """``directory`` gets its configuration, its data and its log."""
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._tool = tool
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        (directory / "rules.yaml").write_text(rules)
        configuration = {  # JSON is YAML
            "global": {
                "scrape_interval": "1s",
                "scrape_timeout": "1s",
                "evaluation_interval": "1s",
            },
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {
                    "job_name": "penstock",
                    "static_configs": [
                        {"targets": [f"127.0.0.1:{port}"], "labels": dict(labels)}
                        for port, labels in targets.items()
                    ],
                }
            ],
        }
        (directory / "prometheus.yaml").write_text(json.dumps(configuration))

    def __enter__(self) -> Self:
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._tool,
                    "--config.file=prometheus.yaml",
                    "--storage.tsdb.path=data",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.until(lambda: self._get("/-/ready")[0] == 200, "readiness")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()  # its data is nobody's
            self._process.wait()

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def ask(self, path: str, **parameters: str) -> Any:
        """``data`` of an answer of the HTTP API, below ``/api/v1``.

        Raises:
            ValueError: Prometheus refuses the question.
        """
        _, body = self._get(f"/api/v1/{path}?{urlencode(parameters)}")
        answer = json.loads(body or b"{}")
        if answer.get("status") != "success":
            raise ValueError(f"{path} {parameters}: {answer.get('error', 'no answer')}")
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query, now."""
        return list(self.ask("query", query=expression)["result"])

    def value(self, expression: str) -> float | None:
        """The value of the only sample; None where there is none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if len(found) == 1 else None

    def firing(self) -> list[dict[str, Any]]:
        """The alerts that fire now."""
        return [alert for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"]

    def until_evaluated(self) -> None:
        """Wait until the rules have seen what the last query saw."""
        for _ in range(2):  # one may be under way
            before = self._evaluated()
            self.until(lambda past=before: self._evaluated() != past, "an evaluation")  # type: ignore[misc] # a default holds the loop's value

    def _evaluated(self) -> list[str]:
        return [group["lastEvaluation"] for group in self.ask("rules")["groups"]]

    def until(self, condition: Callable[[], object], what: str, timeout: float = 60.0) -> None:
        """Wait for a condition; fails with the log's end if it does not come."""
        deadline = time.monotonic() + timeout
        while not condition():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                log = (self._directory / "log").read_text(errors="replace")[-3000:]
                raise AssertionError(f"no {what} within {timeout} s\n{log}")
            time.sleep(0.05)  # the poll interval of a wait on a condition
