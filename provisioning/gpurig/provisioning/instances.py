"""The gpurig instances of one machine: several GitLabs or projects may share a box."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gpurig.common.errors import ApplianceError
from gpurig.provisioning.config_toml import parse_config
from gpurig.provisioning.disk import Disk
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.settings import is_name
from gpurig.provisioning.state import State, load_state


@dataclass(frozen=True)
class Instance:
    """One instance as its files tell.

    Attributes:
        job_images: those that its config.toml names.
    """

    name: str
    state: State
    job_images: tuple[str, ...] = ()


def instances(disk: Disk, root: Path) -> tuple[Instance, ...]:
    """Every instance below `root`, by name; a folder whose state cannot be read as ours is somebody else's.

    Raises:
        PrerequisiteError: the folder of configurations may not be listed.
    """
    found = []
    for name in disk.names(Paths(root=root).config_dir.parent):
        paths = Paths(root=root, name=name)
        if not is_name(name) or disk.missing(paths.state):
            continue
        try:
            found.append(Instance(name, load_state(disk, paths), _job_images(disk.read(paths.config))))
        except ApplianceError:
            continue
    return tuple(found)


def _job_images(config: str | None) -> tuple[str, ...]:
    entries = (parse_config(config or "") or {}).get("runners") or []
    return tuple(str(one["docker"]["image"]) for one in entries if "image" in (one.get("docker") or {}))


def shared_gpus(gpus: Iterable[str], name: str, others: Iterable[Instance]) -> Mapping[str, tuple[str, ...]]:
    """Which of `gpus` runners of other instances own, too, and whose they are: their jobs can meet in its memory.

    Args:
        gpus: their uuids.
        name: of the instance that asks.
        others: may hold that one, too.
    """
    owners: dict[str, tuple[str, ...]] = {}
    for gpu in gpus:
        names = tuple(
            other.name
            for other in others
            if other.name != name and any(gpu in one.gpus for one in other.state.registrations)
        )
        if names:
            owners[gpu] = names
    return owners
