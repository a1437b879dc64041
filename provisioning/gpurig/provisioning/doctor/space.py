"""Disk space for images and models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpurig.provisioning.distribution import Command
from gpurig.provisioning.doctor.finding import Finding
from gpurig.provisioning.facts import Backend

_GB = 1000**3
# What a first `up` takes at its peak, the build stage with the vendor's compilers included.
_IMAGES_GB: Mapping[Backend, int] = {"cpu": 6, "cuda": 20, "rocm": 30}
# A 7B model in Q4_K_M is 4.5 GB; a generator and a grader are two.
_MODELS_GB = 10
# What a set-up box needs for logs, job containers and artifacts.
_LEAST_GB = 2


@dataclass(frozen=True)
class SpaceSeen:
    """The file system under a folder.

    Attributes:
        path: the folder, which may not be there yet.
        free_bytes: what this user may still write.
        total_bytes: its size.
    """

    path: Path
    free_bytes: int
    total_bytes: int


def look(path: Path) -> SpaceSeen:
    """Ask the file system of `path`, or of the nearest folder above it that is there.

    Raises:
        OSError: it cannot be asked.
    """
    at = next((one for one in (path, *path.parents) if one.exists()), Path("/"))
    seen = os.statvfs(at)
    return SpaceSeen(path, seen.f_bavail * seen.f_frsize, seen.f_blocks * seen.f_frsize)


def judge_images(seen: SpaceSeen, backends: tuple[Backend, ...], *, set_up: bool) -> tuple[Finding, ...]:
    """Whether the engine has room for the images of these backends; once they are there, for what jobs write."""
    needed = sum(_IMAGES_GB[backend] for backend in backends)
    look_first = (Command(("docker", "system", "df"), by_hand=True, as_root=False),)
    hint = "docker image prune removes images without a name; docker builder prune what builds left"
    return (_judge("image space", seen, needed, set_up=set_up, commands=look_first, hint=hint),)


def judge_models(seen: SpaceSeen, *, set_up: bool) -> tuple[Finding, ...]:
    """Whether the models folder has room."""
    look_first = (Command(("du", "-sh", str(seen.path)), by_hand=True, as_root=False),)
    hint = "or keep models elsewhere: --root DIR, or a mount at that folder"
    return (_judge("model space", seen, _MODELS_GB, set_up=set_up, commands=look_first, hint=hint),)


def _judge(
    name: str, seen: SpaceSeen, needed_gb: int, *, set_up: bool, commands: tuple[Command, ...], hint: str
) -> Finding:
    free = f"{seen.free_bytes / _GB:.1f} GB free"
    needed = f"{needed_gb} GB"
    if seen.free_bytes >= needed_gb * _GB:
        return Finding(name, "ok", f"in {seen.path}", found=free, needed=needed)
    message = f"{seen.path} has {free} of {seen.total_bytes / _GB:.0f} GB"
    enough = set_up and seen.free_bytes >= _LEAST_GB * _GB
    return Finding(
        name, "warning" if enough else "failed", message, found=free, needed=needed, commands=commands, hint=hint
    )
