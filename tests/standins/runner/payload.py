"""A job as GitLab hands it out, and its variables as its script sees them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from standins.runner.config import Entry

_REFERENCE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class Payload:
    """The answer of jobs/request with what the entry adds."""

    body: Mapping[str, Any] = field(repr=False)
    entry: Entry
    system_id: str
    slot: int

    @property
    def id(self) -> int:
        return int(self.body["id"])

    @property
    def token(self) -> str:
        return str(self.body["token"])

    @property
    def project_id(self) -> int:
        return int(self.body["job_info"]["project_id"])

    @property
    def project_dir(self) -> str:
        """Where the sources lie in the build container."""
        return f"{self.entry.builds_dir}/{self.body['job_info']['project_full_path']}"

    @property
    def temporary_dir(self) -> str:
        """Where the variables of type file lie."""
        return f"{self.project_dir}.tmp"

    @property
    def timeout_s(self) -> int:
        return int(self.body["runner_info"]["timeout"])

    @property
    def masked(self) -> list[str]:
        """The values that no log may show."""
        return [item["value"] for item in self.body["variables"] if item.get("masked")] + [self.token]

    @property
    def files(self) -> dict[str, str]:
        """Variables of type file: name and content."""
        return {item["key"]: item["value"] for item in self._items() if item.get("file")}

    @property
    def environment(self) -> dict[str, str]:
        """All variables, later ones winning, references expanded, files as their paths."""
        items = {item["key"]: item for item in self._items()}
        plain = {
            key: f"{self.temporary_dir}/{key}" if item.get("file") else str(item["value"])
            for key, item in items.items()
        }
        return {
            key: value if items[key].get("raw") or items[key].get("file") else expand(value, plain)
            for key, value in plain.items()
        }

    @property
    def public_environment(self) -> dict[str, str]:
        """What a service has of the job's variables: the runner's own and those that GitLab calls public."""
        known = {item["key"] for item in self.body["variables"]}
        public = {item["key"] for item in self.body["variables"] if item.get("public")}
        return {key: value for key, value in self.environment.items() if key in public or key not in known}

    def _items(self) -> list[dict[str, Any]]:
        entry = self.entry
        own = {
            "CI_BUILDS_DIR": entry.builds_dir,
            "CI_PROJECT_DIR": self.project_dir,
            "CI_CONCURRENT_ID": str(self.slot),
            "CI_CONCURRENT_PROJECT_ID": str(self.slot),
            "CI_SERVER": "yes",
            "CI_JOB_STATUS": "running",
            "CI_JOB_TIMEOUT": str(self.timeout_s),
            "CI_RUNNER_SHORT_TOKEN": entry.short_token,
            "CI_RUNNER_VERSION": "19.4.0",
            "CI_DISPOSABLE_ENVIRONMENT": "true",
            **dict(pair.split("=", 1) for pair in entry.environment),
        }
        items: list[dict[str, Any]] = [{"key": key, "value": value} for key, value in own.items()]
        if entry.ca_file:
            content = Path(entry.ca_file).read_text(encoding="utf-8")
            items.append({"key": "CI_SERVER_TLS_CA_FILE", "value": content, "file": True})
        return [*items, *self.body["variables"]]


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$NAME` and `${NAME}` replaced, once; an unknown one becomes nothing, as in gitlab-runner."""
    return _REFERENCE.sub(lambda found: values.get(found[1] or found[2], ""), text)
