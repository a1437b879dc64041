"""The record files between stages: appended durably, read with every damage named, locked while a stage writes.

A file holds records and, before them, what each run wanted (a "run" line: every trial's key). The last run line says
which records count; of records with the same key the last one does. So a file only grows: a sample that was finished
is never lost or done again, and one that another version of the suite made is never taken for this one's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import ValidationError

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.files import LineLog, make_directory, try_lock, whole_lines, write_problem
from gpurig.evaljobs.checks.files import Digests
from gpurig.evaljobs.grading.calibration import calibration_items
from gpurig.evaljobs.keys import check_basis, generation_basis, grade_basis
from gpurig.evaljobs.records import Checked, Generation, Grade, Part, RunRecord, Score
from gpurig.evaljobs.suites.suite import Suite
from gpurig.evaljobs.suites.trials import trials_of

GENERATIONS = "generations.jsonl"
CHECKS = "checks.jsonl"
GRADES = "grades.jsonl"
CALIBRATION = "calibration.jsonl"

R = TypeVar("R", Generation, Checked, Grade, Score)


class _Tagged(Part):
    """Of which kind a line is."""

    record: str


@dataclass(frozen=True)
class StageFile(Generic[R]):
    """The content of one record file.

    Attributes:
        run: what the last run wanted; None where no run began.
        records: by trial and key, the last one of each.
    """

    path: Path
    run: RunRecord | None
    records: Mapping[tuple[str, str], R] = field(repr=False)

    def finished(self, keys: Mapping[str, str] | None = None) -> dict[str, R]:
        """The records that have the wanted keys, by trial, in the order of the keys.

        Args:
            keys: by trial; those of the last run where None.
        """
        wanted = keys if keys is not None else (self.run.keys if self.run else {})
        found = ((trial, self.records.get((trial, key))) for trial, key in wanted.items())
        return {trial: record for trial, record in found if record is not None}


@dataclass(frozen=True)
class RunRecords:
    """What the stages wrote, each by the trial's id.

    Attributes:
        calibration: by the answer's id; empty where nobody asked for it (`read_calibration`).
    """

    generations: Mapping[str, Generation]
    checks: Mapping[str, Checked]
    grades: Mapping[str, Grade]
    calibration: Mapping[str, Grade] = field(default_factory=dict)


def read_stage(path: Path, kind: type[R]) -> StageFile[R]:
    """Read a record file; a missing one is empty, and a last line without its end is not there yet.

    Raises:
        InputError: a line is no record of this stage; the message names file and line.
        PrerequisiteError: no permission.
    """
    run = None
    records: dict[tuple[str, str], R] = {}
    for number, line in whole_lines(path):
        try:
            if _Tagged.model_validate_json(line).record == "run":
                run = RunRecord.model_validate_json(line)
                continue
            record = kind.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(
                f"{path}:{number}: no record of this stage: {f'{where}: ' if where else ''}{first['msg']}",
                hint="delete that line and run the stage again: it does only what is missing",
            ) from error
        records[record.trial, record.key] = record
    return StageFile(path, run, records)


def read_records(out: Path, suite: Suite) -> RunRecords:
    """What the stages finished in the folder `out` for this suite as it is now.

    A record that answers something else (an edited sample, another output) is left out, as if it were not there.

    Raises:
        InputError: a damaged file. PrerequisiteError: no permission.
    """
    samples = {trial.id: trial.sample for trial in trials_of(suite)}
    specs = suite.named_generators
    generations = {
        name: record
        for name, record in read_stage(out / GENERATIONS, Generation).finished().items()
        if name in samples and record.basis == generation_basis(specs[record.generator], samples[name])
    }
    digests = Digests()
    return RunRecords(
        generations=generations,
        checks={
            name: record
            for name, record in read_stage(out / CHECKS, Checked).finished().items()
            if name in generations and record.basis == check_basis(suite, samples[name], generations[name], digests)
        },
        grades={
            name: record
            for name, record in read_stage(out / GRADES, Grade).finished().items()
            if name in generations and record.basis == grade_basis(suite, samples[name], generations[name].output)
        },
    )


def read_calibration(out: Path, suite: Suite) -> dict[str, Grade]:
    """The grader's verdicts on what people judged, by the answer's id, for suite and calibration set as they are now.

    Raises:
        InputError: a damaged file, or a wrong calibration set. PrerequisiteError: no permission.
    """
    items = {item.id: item for item in calibration_items(suite)}
    return (
        {
            name: record
            for name, record in read_stage(out / CALIBRATION, Grade).finished().items()
            if name in items and record.basis == grade_basis(suite, items[name].sample, items[name].output)
        }
        if items
        else {}
    )


class StageWriter(Generic[R]):
    """Appends what is missing to a record file; a run that comes to nothing leaves no trace in it."""

    def __init__(self, content: StageFile[R], keys: Mapping[str, str], *, sync: bool = True) -> None:
        """Prepare to write what `keys` want; nothing is written yet.

        Args:
            content: of the file until now.
            keys: every trial's key.
            sync: wait for the disk at every record; without, once, in `finish`: waiting takes longer than most checks.
        """
        self._path, self._sync = content.path, sync
        self._keys = dict(keys)
        # Compared as lists, because the order is the samples' and dicts forget it in comparisons.
        self._same = content.run is not None and list(content.run.keys.items()) == list(keys.items())
        self._log: LineLog | None = None

    def append(self, record: R) -> None:
        """Add a record.

        Raises:
            PrerequisiteError: the file cannot be written.
        """
        self._begun().append(record.model_dump_json())

    def finish(self) -> None:
        """Note what this run wanted, where the last run wanted something else and no record has done it; on the disk.

        Raises:
            PrerequisiteError: the file cannot be written.
        """
        if not self._same:
            self._begun()
        if self._log is not None:
            self._log.sync()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._log is not None:
            self._log.close()

    def _begun(self) -> LineLog:
        if self._log is None:
            self._log = LineLog(self._path, sync=self._sync)
        if not self._same:
            started = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            self._log.append(RunRecord(started=started, keys=self._keys).model_dump_json())
            self._same = True
        return self._log


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the folder `out`, made where it is missing, against other runs.

    The lock is the kernel's (flock on the folder): it ends with the process, however that ends. A folder that was made
    for a run that wrote nothing is removed again.

    Raises:
        PrerequisiteError: another process holds it, or the folder cannot be made.
    """
    made = not out.exists()
    make_directory(out)
    try:
        descriptor = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise write_problem(out, error) from error
    try:
        if not try_lock(descriptor, out):
            made = False  # by now it is the other run's
            raise PrerequisiteError(
                f"another gpurig-job works in {out}", hint="wait until it has ended, or give another --out"
            )
        yield
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        if made:
            with contextlib.suppress(OSError):
                out.rmdir()  # only an empty one goes
