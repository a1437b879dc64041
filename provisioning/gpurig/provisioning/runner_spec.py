"""What GitLab is told about a runner, and which part of it makes it another runner."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpurig.common.terminal import harmless
from gpurig.common.version import __version__
from gpurig.provisioning.facts import Gpu
from gpurig.provisioning.settings import RunnerType
from gpurig.provisioning.vram import vram_class_gb

# GitLab's limit for both, in characters (app/models/ci/runner.rb).
TEXT_LIMIT = 1024

# What people read and no job depends on.
_WORDING = ("description", "maintenance_note")


@dataclass(frozen=True)
class RunnerSpec:
    """What GitLab is told when a runner is created.

    Attributes:
        locked: a project runner serves no other project.
        protected: it takes jobs of protected branches and tags only.
        maximum_timeout: seconds that a job may take at most; None leaves it to the project.
        maintenance_note: for the people who look after the runner.
    """

    url: str
    runner_type: RunnerType
    target: str
    description: str
    tags: tuple[str, ...]
    run_untagged: bool
    locked: bool = False
    protected: bool = False
    paused: bool = False
    maximum_timeout: int | None = None
    maintenance_note: str = ""

    @property
    def place(self) -> tuple[str, str, str]:
        """Whose runner it is: the one thing that cannot be changed afterwards."""
        return (self.url, self.runner_type, self.target)

    def digest(self) -> str:
        """Of all that decides which jobs it gets; equal for equal specs, in any order of tags."""
        value = {name: one for name, one in self.document().items() if name not in _WORDING}
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return dataclasses.asdict(self) | {"tags": sorted(self.tags)}


def spec_from(document: Mapping[str, Any]) -> RunnerSpec:
    """The spec that `document` was made from."""
    known = {field.name for field in dataclasses.fields(RunnerSpec)}
    values = {name: value for name, value in document.items() if name in known}
    return RunnerSpec(**{**values, "tags": tuple(values.get("tags", ()))})


def maintenance_note(gpus: Sequence[Gpu], *, hostname: str, said: str = "") -> str:
    """The box's facts for GitLab's runner page, at most 1024 characters.

    Args:
        gpus: of the runner entry.
        hostname: as the machine calls itself.
        said: what the user adds; it comes first and stays whole.
    """
    lines = [*([said, ""] if said else []), f"gpurig {__version__} on {hostname}"]
    facts = [_fact(gpu) for gpu in gpus] or ["CPU only"]
    for number, line in enumerate(facts):
        rest = f"and {len(facts) - number} more GPU(s)"
        if len("\n".join([*lines, line, rest])) > TEXT_LIMIT:
            lines.append(rest)
            break
        lines.append(line)
    return "\n".join(lines)[:TEXT_LIMIT]


def _fact(gpu: Gpu) -> str:
    parts = [harmless(gpu.name) or gpu.backend]
    if gpu.memory_bytes is not None:
        size = vram_class_gb(gpu.memory_bytes)
        mib = f"{gpu.memory_bytes // 2**20} MiB"
        parts.append(f"{size} GB ({mib})" if size else mib)
    parts += ["unified memory"] if gpu.unified else []
    parts += [gpu.arch] if gpu.arch else []
    parts += [f"driver {harmless(gpu.driver)}"] if gpu.driver else []
    return f"GPU {gpu.pci_address}: ".replace(" :", ":") + ", ".join(parts)
