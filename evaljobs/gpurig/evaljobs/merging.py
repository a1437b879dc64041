"""The parts of a run that several jobs made, put together: the records of each, as if one job had made them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpurig.common.errors import InputError
from gpurig.evaljobs.records import Checked, Generation, Grade
from gpurig.evaljobs.results import read_results
from gpurig.evaljobs.store import CALIBRATION, CHECKS, GENERATIONS, GRADES, R, StageWriter, read_stage
from gpurig.evaljobs.suites.suite import Suite
from gpurig.evaljobs.suites.trials import Trial

_RESULTS = "results.json"


@dataclass(frozen=True)
class Parts:
    """The folders of all parts of a run, in the parts' order.

    Attributes:
        started: when the first of them began, ISO 8601 in UTC.
    """

    folders: tuple[Path, ...]
    started: str


def read_parts(suite: Suite, folders: Sequence[Path]) -> Parts:
    """Hold the folders' results against each other.

    Raises:
        InputError: one is no part, or of another suite or version of it; parts are missing, or there twice.
    """
    by_index: dict[int, Path] = {}
    totals: dict[int, Path] = {}
    started = []
    for folder in folders:
        results = read_results(folder / _RESULTS)
        if not results.shard:
            raise InputError(f"{folder} is a whole run, no part of one", hint="give the folders that --shard made")
        if (results.suite, results.suite_sha256) != (suite.name, suite.sha256):
            raise InputError(
                f'{folder} is of another suite, or another version of "{suite.name}"',
                hint="merge with the suite as it was when the parts ran",
            )
        index, total = (int(number) for number in results.shard.split("/"))
        if index in by_index:
            raise InputError(f"{folder} and {by_index[index]} are both the part {results.shard}", hint="give each once")
        by_index[index], totals[total] = folder, folder
        started.append(results.started)
    if len(totals) > 1:
        one, other = list(totals)[:2]
        raise InputError(
            f"{totals[one]} is a part of {one}, and {totals[other]} of {other}", hint="give the parts of one run"
        )
    (total,) = totals
    if missing := sorted(set(range(1, total + 1)) - by_index.keys()):
        raise InputError(
            f"{'the part' if len(missing) == 1 else 'the parts'} {', '.join(map(str, missing))} of {total} "
            f"{'is' if len(missing) == 1 else 'are'} missing",
            hint="give the folders of all parts: the jobs of `parallel` must all have ended well",
        )
    return Parts(tuple(by_index[index] for index in sorted(by_index)), min(started))


def merge_records(parts: Parts, out: Path, trials: Sequence[Trial]) -> None:
    """Write the parts' records into the folder `out`, in the order of the trials.

    Raises:
        InputError: an answer is in two parts; a damaged file. PrerequisiteError: a file cannot be read or written.
    """
    order = [trial.id for trial in trials]
    _merge(parts, out / GENERATIONS, Generation, order)
    _merge(parts, out / CHECKS, Checked, order)
    _merge(parts, out / GRADES, Grade, order)
    # Every part has judged the same answers of people.
    _merge(parts, out / CALIBRATION, Grade, None)


def _merge(parts: Parts, path: Path, kind: type[R], order: Sequence[str] | None) -> None:
    found: dict[str, R] = {}
    owner: dict[str, Path] = {}
    for folder in parts.folders:
        for name, record in read_stage(folder / path.name, kind).finished().items():
            if name in found and order is not None:
                raise InputError(
                    f'"{name}" is in {owner[name]} and in {folder}', hint="run the parts again with one --shard each"
                )
            found.setdefault(name, record)
            owner[name] = folder
    names = list(found) if order is None else [name for name in order if name in found]
    if not names:
        return
    content = read_stage(path, kind)
    keys = {name: found[name].key for name in names}
    there = content.finished(keys)
    writer = StageWriter(content, keys, sync=False)
    try:
        for name in names:
            if there.get(name) != found[name]:
                writer.append(found[name])
        writer.finish()
    finally:
        writer.close()
