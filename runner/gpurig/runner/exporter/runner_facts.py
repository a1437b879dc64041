"""What state.json tells of this box's runners; the tokens in it are never looked at."""

from __future__ import annotations

import time
from pathlib import Path

from gpurig.common.errors import ApplianceError
from gpurig.provisioning.disk import LocalDisk
from gpurig.provisioning.paths import Paths
from gpurig.runner.exporter.devices.figures import SourceError
from gpurig.runner.exporter.jobs.model import BoxFacts, RunnerEntry


def read_runner_facts(root: Path, name: str) -> BoxFacts | None:
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
    return BoxFacts(
        written_at=time.time(),
        runners=tuple(
            RunnerEntry(
                id=one.id,
                description=one.description,
                tags=one.tags,
                expires_at=one.expires_at.timestamp() if one.expires_at else None,
            )
            for one in state.registrations
        ),
    )
