"""What the accounting keeps over a restart of the exporter.

One file of JSON lines (docs/formats.md): the first line holds everything, each further line what changed since. A
change is in the file before it is shown, so that no counter falls when the exporter is killed; only a power cut can
take back what is younger than the first line. Plain json: pydantic would be a third of the exporter's memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpurig.common.errors import ApplianceError, PrerequisiteError
from gpurig.common.files import (
    LineLog,
    make_directory,
    read_problem,
    try_lock,
    whole_lines,
    write_atomic,
    write_problem,
)
from gpurig.runner.exporter.devices.energy import Energy
from gpurig.runner.exporter.jobs.json_values import as_amount, as_count, as_list, as_object, as_text
from gpurig.runner.exporter.jobs.ledger import Job, Use
from gpurig.runner.exporter.jobs.model import JobKey, OomKind, ProjectUse

SCHEMA = "gpurig.accounting/1"
FILE_NAME = "accounting.jsonl"
DAMAGED_NAME = f"{FILE_NAME}.damaged"
_MOST_BYTES = 64 * 1024 * 1024
_OOM_KINDS: dict[str, OomKind] = {"gpu": "gpu", "host": "host"}


@dataclass
class Kept:
    """What is kept, or a change of it.

    Attributes:
        energy: by the GPU's UUID.
        jobs: those that are shown; of those that ended a while ago some may be left, whose time is over.
        projects: by id.
    """

    energy: dict[str, Energy] = field(default_factory=dict)
    jobs: dict[JobKey, Job] = field(default_factory=dict)
    projects: dict[str, ProjectUse] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.energy or self.jobs or self.projects)

    def update(self, change: Kept) -> None:
        """Take a change into what is kept."""
        self.energy.update(change.energy)
        self.projects.update(change.projects)
        self.jobs.update(change.jobs)


class StateFile:
    """The file, held by one process at a time."""

    def __init__(self, folder: Path) -> None:
        """Open the folder, making it where it is missing.

        Raises:
            PrerequisiteError: it cannot be written, or another process has it.
        """
        make_directory(folder)
        self._path = folder / FILE_NAME
        self._log: LineLog | None = None
        try:
            self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise write_problem(folder, error) from error
        if not try_lock(self._lock, folder):
            self.close()
            raise PrerequisiteError(
                f"another exporter keeps its counters in {folder}", hint="give this one a folder of its own"
            )

    def load(self, say: Callable[[str], None]) -> Kept:
        """What an earlier process kept; nothing where there is no file.

        What cannot be read is put aside as accounting.jsonl.damaged, and `say` is told so in one line; what stands
        before a damaged line counts.

        Raises:
            PrerequisiteError: the file may not be moved.
        """
        kept = Kept()
        try:
            if self._path.stat().st_size > _MOST_BYTES:
                self._put_aside(f"larger than {_MOST_BYTES // 1024**2} MiB", say)
                return kept
            for number, line in whole_lines(self._path):
                try:
                    kept.update(_read(line, first=number == 1))
                except (ValueError, RecursionError) as error:
                    self._put_aside(f"line {number}: {error}", say)
                    break
        except FileNotFoundError:
            return kept
        except ApplianceError as error:
            self._put_aside(error.message, say)
        except OSError as error:
            raise read_problem(self._path, error) from error
        return kept

    def _put_aside(self, why: str, say: Callable[[str], None]) -> None:
        aside = self._path.with_name(DAMAGED_NAME)
        try:
            self._path.replace(aside)
        except OSError as error:
            raise write_problem(aside, error) from error
        say(f"{self._path} cannot be used and is now {aside.name}: {' '.join(why.split())[:300]}")

    def append(self, line: str) -> None:
        """Keep a change, encoded; it outlives this process when this returns.

        Raises:
            PrerequisiteError: it cannot be written; `write` everything anew, as before the first change.
        """
        if self._log is None:
            raise PrerequisiteError(f"{self._path} has not been written", hint="write everything first")
        try:
            self._log.append(line)
        except ApplianceError:
            self._end_log()
            raise

    def write(self, line: str) -> None:
        """Keep everything anew, encoded; it is on the disk when this returns.

        Raises:
            PrerequisiteError: it cannot be written; the old file is whole.
        """
        self._end_log()
        write_atomic(self._path, line + "\n")
        self._log = LineLog(self._path, sync=False)

    @property
    def ready(self) -> bool:
        """Whether changes can be appended: everything was written, and no appending failed since."""
        return self._log is not None

    def _end_log(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def close(self) -> None:
        """Let go of the folder; a second call does nothing."""
        self._end_log()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def encode(kept: Kept, *, written_at: float | None = None) -> str:
    """A line of the file: everything, with the time (Unix) at which it was written, or else a change."""
    document: dict[str, object] = {} if written_at is None else {"schema": SCHEMA, "written_at": written_at}
    if kept.energy:
        document["gpus"] = {uuid: _energy_out(one) for uuid, one in kept.energy.items()}
    if kept.jobs:
        document["jobs"] = [_job_out(job) for job in kept.jobs.values()]
    if kept.projects:
        document["projects"] = [_project_out(one) for one in kept.projects.values()]
    return json.dumps(document, separators=(",", ":"), allow_nan=False)


def _energy_out(energy: Energy) -> dict[str, object]:
    return {
        "joules": energy.joules,
        "told": energy.told,
        "counter_joules": energy.counter_joules,
        "idle_watts": energy.idle_watts,
    }


def _job_out(job: Job) -> dict[str, object]:
    return {
        "key": [job.key.job_id, job.key.project_id, job.key.pipeline_id, job.key.runner],
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "exit_code": job.exit_code,
        "counted": job.counted,
        "ooms": sorted(list(one) for one in job.ooms),
        "uses": {
            uuid: {"peak_bytes": use.memory_peak_bytes, "busy_s": use.busy_s, "joules": use.joules}
            for uuid, use in job.uses.items()
        },
    }


def _project_out(project: ProjectUse) -> dict[str, object]:
    return {
        "id": project.project_id,
        "jobs": project.jobs,
        "busy_s": project.gpu_seconds,
        "joules": project.energy_joules,
        "oom": dict(project.oom),
    }


def _read(line: str, *, first: bool) -> Kept:
    """A line; fields that are not known are passed over. Raises ValueError."""
    document = as_object(json.loads(line))
    if first and document.get("schema") != SCHEMA:
        raise ValueError(f"its schema is {str(document.get('schema'))[:40]!r}, not {SCHEMA!r}")
    return Kept(
        energy={as_text(uuid): _energy_in(as_object(one)) for uuid, one in as_object(document.get("gpus", {})).items()},
        jobs={job.key: job for job in (_job_in(as_object(one)) for one in as_list(document.get("jobs", [])))},
        projects={
            one.project_id: one
            for one in (_project_in(as_object(each)) for each in as_list(document.get("projects", [])))
        },
    )


def _energy_in(one: Mapping[str, Any]) -> Energy:
    return Energy(
        joules=as_amount(one.get("joules")),
        told=one.get("told") is True,
        counter_joules=_maybe(one.get("counter_joules")),
        idle_watts=_maybe(one.get("idle_watts")),
    )


def _key_in(one: object) -> JobKey:
    words = [as_text(word) for word in as_list(one)]
    if len(words) != 4:
        raise ValueError("a job's key has four parts")
    return JobKey(*words)


def _job_in(one: Mapping[str, Any]) -> Job:
    exit_code = one.get("exit_code")
    return Job(
        key=_key_in(one.get("key")),
        started_at=as_amount(one.get("started_at")),
        ended_at=_maybe(one.get("ended_at")),
        exit_code=None if exit_code is None else as_count(exit_code),
        counted=one.get("counted") is True,
        ooms=set(_ooms_in(as_list(one.get("ooms", [])))),
        uses={as_text(uuid): _use_in(as_object(use)) for uuid, use in as_object(one.get("uses", {})).items()},
    )


def _ooms_in(listed: Iterable[object]) -> Iterable[tuple[str, OomKind, float]]:
    for one in listed:
        parts = as_list(one)
        kind = _OOM_KINDS.get(as_text(parts[1])) if len(parts) == 3 else None
        if kind is None:
            raise ValueError("a death for want of memory is a container, a kind of memory and a time")
        yield as_text(parts[0]), kind, as_amount(parts[2])


def _use_in(one: Mapping[str, Any]) -> Use:
    peak = _maybe(one.get("peak_bytes"))
    return Use(
        memory_peak_bytes=None if peak is None else int(peak),
        busy_s=_maybe(one.get("busy_s")),
        joules=_maybe(one.get("joules")),
    )


def _project_in(one: Mapping[str, Any]) -> ProjectUse:
    return ProjectUse(
        project_id=as_text(one.get("id")),
        jobs=as_count(one.get("jobs")),
        gpu_seconds=_maybe(one.get("busy_s")),
        energy_joules=_maybe(one.get("joules")),
        oom={
            _OOM_KINDS[kind]: int(as_amount(n))
            for kind, n in as_object(one.get("oom", {})).items()
            if kind in _OOM_KINDS
        },
    )


def _maybe(value: object) -> float | None:
    return None if value is None else as_amount(value)
