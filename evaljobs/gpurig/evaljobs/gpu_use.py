"""What the box's exporter tells of the GPU use of a pipeline's jobs: one file a job, mounted into job containers.

The files are the contract, described in docs/formats.md. They come from outside of the job, so nothing about them is
taken for granted.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from gpurig.evaljobs.results import JobGpuUse

# Where a runner that gpurig set up mounts the files.
GPU_USE_FOLDER = Path("/run/gpurig/usage")

_FILE = re.compile(r"([0-9]{1,20})\.json")
_NUMBER = re.compile(r"[0-9]{1,20}")
_MOST_BYTES = 64 * 1024
# The files of a week; a pipeline's jobs are among the latest.
_MOST_FILES = 2_000
_MOST_NAMES = 100_000
_MOST_JOBS = 100
_MOST_WARNINGS = 3


class _UseFile(JobGpuUse):
    """The file of a job."""

    schema_: Literal["gpurig.gpu-use/1"] = Field(alias="schema")
    project_id: str


def find_gpu_use(folder: Path, environ: Mapping[str, str], warn: Callable[[str], None]) -> tuple[JobGpuUse, ...]:
    """The use of this pipeline's jobs on this box, by job id; nothing outside of CI, or where no exporter tells of it.

    Args:
        folder: of the files.
        environ: GitLab's predefined variables.
        warn: called with one line for what cannot be used; it is passed over.
    """
    project, pipeline = environ.get("CI_PROJECT_ID", ""), environ.get("CI_PIPELINE_ID", "")
    if not (_NUMBER.fullmatch(project) and _NUMBER.fullmatch(pipeline)):
        return ()
    names = _latest(folder / project, warn)
    found: list[JobGpuUse] = []
    problems: list[str] = []
    for name in names:
        try:
            use = _read(folder / project / name, project)
        except FileNotFoundError:
            # Pruned meanwhile.
            continue
        except (OSError, ValueError) as error:
            problems.append(f"{folder / project / name} is passed over: {_reason(error)}")
            continue
        if use.pipeline_id == pipeline:
            found.append(use)
    for line in problems[:_MOST_WARNINGS]:
        warn(line)
    if len(problems) > _MOST_WARNINGS:
        warn(f"{len(problems) - _MOST_WARNINGS} more files of GPU use are passed over")
    return tuple(sorted(found, key=lambda one: int(one.job_id))[-_MOST_JOBS:])


def _latest(folder: Path, warn: Callable[[str], None]) -> list[str]:
    """The names of the latest jobs' files; none where the folder is missing."""
    ids: list[int] = []
    try:
        with os.scandir(folder) as entries:
            for _, entry in zip(range(_MOST_NAMES), entries, strict=False):
                match = _FILE.fullmatch(entry.name)
                if match and str(int(match[1])) == match[1]:
                    ids.append(int(match[1]))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        warn(f"cannot read {folder}: {error.strerror}; the reports show no GPU use")
        return []
    return [f"{number}.json" for number in sorted(ids, reverse=True)[:_MOST_FILES]]


def _read(path: Path, project: str) -> JobGpuUse:
    # Neither a link to elsewhere nor a pipe that never ends.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no file")
        content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES // 1024} KiB")
    use = _UseFile.model_validate_json(content)
    if use.project_id != project or f"{use.job_id}.json" != path.name:
        raise ValueError("it tells of another job than its name says")
    return JobGpuUse.model_validate(use.model_dump())


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"{where}: {first['msg']}" if where else first["msg"]
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
