"""What the box itself tells: its runner entries, the size of images and models, free space. Each fails on its own.

state.json and config.toml are read without pydantic, which would be a third of the exporter's memory; tokens in them
are looked at for their short form only, which GitLab shows, too.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from gpurig.provisioning.paths import Paths
from gpurig.runner.exporter.devices.figures import SourceError
from gpurig.runner.exporter.jobs.model import Disk, RunnerEntry

# images.plan's and job_image's labels: importing them would load what builds images.
_LABEL_HASH = "io.gpurig.content-hash"
_LABEL_BACKEND = "io.gpurig.backend"
_EXPORTER = "gpurig-exporter:"

_MOST_FILE_BYTES = 4 * 1024 * 1024
_MOST_ENTRIES = 100_000

# What gitlab-runner cuts from a token's front before it keeps nine characters (helpers/shorten_token.go).
_TOKEN_PREFIX = re.compile(r"glrt-(?:t[123]_)?|t[123]_|glrtr-|glcbt-|GR[0-9A-Fa-f]{7}")
_SHORT_LENGTH = 9


def short_token(token: str) -> str:
    """The part of a runner's token that gitlab-runner labels containers with, and that GitLab shows."""
    prefix = _TOKEN_PREFIX.match(token)
    return token[prefix.end() if prefix else 0 :][:_SHORT_LENGTH]


def read_runners(paths: Paths) -> tuple[RunnerEntry, ...] | None:
    """The runner entries of an instance; None where it is not set up.

    Raises:
        SourceError: a file is there and cannot be read, or is damaged.
    """
    text = _text(paths.state)
    if text is None:
        return None
    try:
        registrations = json.loads(text)["registrations"]
        rotated = _rotated(_text(paths.config))
        return tuple(_entry(one, rotated) for one in registrations)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SourceError(f"{paths.state} is damaged or of another version: {type(error).__name__}") from error


def _text(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _MOST_FILE_BYTES:
        raise SourceError(f"{path} is larger than {_MOST_FILE_BYTES} bytes")
    return data.decode(errors="replace")


def _entry(one: Mapping[str, Any], rotated: Mapping[int, tuple[str, float | None]]) -> RunnerEntry:
    number = int(one["id"])
    expires = one.get("expires_at")
    token, until = rotated.get(number, ("", None))
    if until is None and expires:
        until = datetime.fromisoformat(expires).timestamp()
    return RunnerEntry(
        id=number,
        description=str(one["description"]),
        tags=tuple(str(tag) for tag in one["tags"]),
        expires_at=until,
        short=short_token(token or str(one["token"])),
    )


def _rotated(config: str | None) -> dict[int, tuple[str, float | None]]:
    """The tokens that config.toml has, by runner, and when they end: gitlab-runner writes there what it has rotated."""
    try:
        runners = tomllib.loads(config or "").get("runners", [])
    except tomllib.TOMLDecodeError:
        return {}
    return {
        one["id"]: (str(one["token"]), _ends(one.get("token_expires_at")))
        for one in runners
        if isinstance(one, dict) and isinstance(one.get("id"), int) and one.get("token")
    }


def _ends(value: Any) -> float | None:
    # Go's zero time stands for "never".
    return value.timestamp() if isinstance(value, datetime) and value.year > 1 else None


def image_bytes(images: Sequence[Mapping[str, Any]], runner_ids: Collection[str]) -> dict[str, int]:
    """Size of gpurig's images in bytes, by kind: job, exporter, runner. Layers that several share count in each.

    Args:
        images: /images/json.
        runner_ids: the images of runners' containers; gitlab-runner's own has no label of gpurig's.
    """
    sizes: dict[str, int] = {}
    for one in images:
        kind, size = _kind(one, runner_ids), one.get("Size")
        if kind and isinstance(size, int):
            sizes[kind] = sizes.get(kind, 0) + size
    return sizes


def _kind(image: Mapping[str, Any], runner_ids: Collection[str]) -> str:
    if image.get("Id") in runner_ids:
        return "runner"
    labels = image.get("Labels")
    if not isinstance(labels, dict) or _LABEL_HASH not in labels:
        return ""
    if labels.get(_LABEL_BACKEND):
        return "job"
    return "exporter" if any(str(tag).startswith(_EXPORTER) for tag in image.get("RepoTags") or []) else ""


def folder_bytes(folder: Path, *, most_entries: int = _MOST_ENTRIES) -> int | None:
    """Size of the files below a folder, in bytes; None where there is none. Links are not followed.

    Raises:
        SourceError: there are more than `most_entries`, or a folder cannot be read.
    """
    total, seen, left = 0, set(), [str(folder)]
    entries = 0
    while left:
        try:
            with os.scandir(left.pop()) as listed:
                for entry in listed:
                    entries += 1
                    if entries > most_entries:
                        raise SourceError(f"{folder} has more than {most_entries} entries")
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        # A file with several names takes its space once.
                        if (status.st_dev, status.st_ino) not in seen:
                            seen.add((status.st_dev, status.st_ino))
                            total += status.st_size
        except FileNotFoundError:
            if not entries:
                return None
        except OSError as error:
            raise SourceError(f"cannot read {error.filename or folder}: {error.strerror}") from error
    return total


def disk(purpose: str, folder: Path) -> Disk:
    """Free space, for users without privileges, where a folder lies.

    Raises:
        SourceError: it is not there, or its file system does not tell.
    """
    try:
        told = os.statvfs(folder)
    except OSError as error:
        raise SourceError(f"cannot tell the free space of {folder}: {error.strerror}") from error
    return Disk(purpose, free_bytes=told.f_bavail * told.f_frsize, total_bytes=told.f_blocks * told.f_frsize)
