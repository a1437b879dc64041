"""Where a baseline comes from."""

from __future__ import annotations

from pathlib import Path

from gpurig.common.errors import InputError
from gpurig.evaljobs.findings import BaselineRef
from gpurig.evaljobs.results import Results, read_results

_RESULTS = "results.json"


def read_baseline(path: Path) -> tuple[Results, BaselineRef]:
    """A run's results: results.json, or the folder that it lies in.

    Raises:
        InputError: there is none, or it is of another schema, or only a part of a run.
        PrerequisiteError: no permission.
    """
    file = path / _RESULTS if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"there is no baseline {file}", hint="give an earlier run's results.json, or its folder")
    results = read_results(file)
    if results.shard:
        raise InputError(f"{file} is the part {results.shard} of a run", hint="merge the parts first")
    ref = BaselineRef(
        source="file",
        name=str(path),
        url=results.job.url,
        suite_sha256=results.suite_sha256,
        started=results.started,
        commit_sha=results.job.commit_sha,
    )
    return results, ref
