"""What state.json tells of this box's runners; the tokens in it are never looked at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gpurig.common.errors import ApplianceError
from gpurig.provisioning.disk import LocalDisk
from gpurig.provisioning.paths import Paths
from gpurig.runner.exporter.devices.figures import SourceError


@dataclass(frozen=True)
class RunnerEntry:
    """One runner entry.

    Attributes:
        id: the runner's number in GitLab.
        description: as GitLab shows it.
        tags: its tags.
        expires_at: when its token ends; None where it never does.
    """

    id: int
    description: str
    tags: tuple[str, ...]
    expires_at: datetime | None


def read_runner_facts(root: Path, name: str) -> tuple[RunnerEntry, ...] | None:
    """The runner entries of an instance; None where there is no state.json, as in the exporter's container.

    Raises:
        SourceError: the file is there and cannot be read, or is damaged. OSError: its folder cannot be looked into.
    """
    paths = Paths(root=root, name=name)
    if not paths.state.exists():
        return None
    from gpurig.provisioning.state import load_state  # noqa: PLC0415 - pydantic is a third of the exporter's memory

    try:
        state = load_state(LocalDisk(), paths)
    except ApplianceError as error:
        raise SourceError(error.message) from error
    return tuple(
        RunnerEntry(id=one.id, description=one.description, tags=one.tags, expires_at=one.expires_at)
        for one in state.registrations
    )
