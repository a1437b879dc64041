"""A suite with small models in a folder, and the settings to run its stages with a scripted engine."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from gpurig.common.models.resolving import Search
from gpurig.evaljobs.engine import EngineProvider
from gpurig.evaljobs.stages import RunSettings
from gpurig.evaljobs.suites.suite import Suite, load_suite
from gpurig.evaljobs.suites.trials import trials_of

from standins.scripted_engine import ScriptedProvider
from standins.tiny_gguf import write_tiny_gguf

# What two runs of the same thing may differ in.
TIMES = ("seconds", "started")


def suite_data(samples: int = 5) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "box",
        "generator": {"model": "writer", "prompt": "{{ input }}:", "sampling": {"max_tokens": 12}},
        "grader": {
            "model": "judge",
            "prompt": "{{ input }}\n{{ output }}\nverdict:",
            "verdicts": {"good": 1.0, "bad": 0.0},
        },
        "checks": ["gitlab-ci", {"contains": "script"}],
        "samples": [{"id": f"s{number}", "input": f"job {number}"} for number in range(samples)],
        "gate": [{"metric": "pass_rate", "min": 0.0}],
    }


@dataclass
class EvalBox:
    """The folder `root` holds suite.yaml, models/ and the run's folder report/."""

    root: Path
    data: dict[str, Any] = field(default_factory=suite_data)

    def __post_init__(self) -> None:
        write_tiny_gguf(self.models / "writer.gguf", seed=1)
        write_tiny_gguf(self.models / "judge.gguf", seed=2)
        self.save()

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def out(self) -> Path:
        return self.root / "report"

    def save(self) -> None:
        (self.root / "suite.yaml").write_text(yaml.safe_dump(self.data, sort_keys=False))

    def suite(self) -> Suite:
        return load_suite(self.root)

    def settings(self, provider: EngineProvider | None = None, **changes: Any) -> RunSettings:
        suite = self.suite()
        fields: dict[str, Any] = {
            "suite": suite,
            "trials": trials_of(suite),
            "out": self.out,
            "search": Search.of_folders(self.models),
            "provider": provider or ScriptedProvider(),
            "stream": io.StringIO(),
        }
        return RunSettings(**fields | changes)

    def records(self, name: str) -> list[dict[str, Any]]:
        """The records of a file, without times."""
        return timeless(self.out / name)


def timeless(path: Path) -> list[dict[str, Any]]:
    """The lines of a record file, without times."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]
