"""The report stage: records in, every report file out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from gpurig.common.files import write_atomic
from gpurig.evaljobs.findings import BaselineRef
from gpurig.evaljobs.report import html_report, junit_xml, metrics_text, note_markdown
from gpurig.evaljobs.results import JobGpuUse, JobRef, Results
from gpurig.evaljobs.store import read_calibration, read_records
from gpurig.evaljobs.suites.selection import Shard
from gpurig.evaljobs.suites.suite import Suite
from gpurig.evaljobs.suites.trials import Trial, trials_of
from gpurig.evaljobs.summary import RunFacts, summarize

RESULTS = "results.json"
JUNIT = "junit.xml"
METRICS = "metrics.txt"
NOTE = "note.md"
HTML = "report.html"


def run_report(
    suite: Suite,
    out: Path,
    *,
    trials: tuple[Trial, ...] | None = None,
    shard: Shard | None = None,
    started: datetime | None = None,
    reused: int = 0,
    gpu_use: tuple[JobGpuUse, ...] = (),
    baseline: tuple[Results, BaselineRef] | None = None,
) -> Results:
    """Compute the results of the records in `out` and write results.json and the reports beside them.

    Each file is replaced as a whole, results.json last: where it is new, all are. The gate's verdict is in the results;
    what to do about it is the caller's.

    Args:
        suite: what the records answer.
        out: the folder of the records, and of the reports.
        trials: those that the other stages ran over; all of the suite where None.
        shard: which part of a larger run they are.
        started: when the run began; now where None.
        reused: trials that an earlier run had finished already.
        gpu_use: what the box's exporter tells of the pipeline's jobs.
        baseline: what it is compared with.

    Raises:
        InputError: a record is missing or not valid; the gate asks for what was not measured.
        PrerequisiteError: a file cannot be written; the eval extra is missing.
    """
    now = datetime.now(UTC)
    facts = RunFacts(
        started=_iso(started or now),
        finished=_iso(now),
        reused=reused,
        job=job_from_environment(os.environ),
        gpu_use=gpu_use,
        shard=str(shard or ""),
    )
    records = replace(read_records(out, suite), calibration=read_calibration(out, suite))
    results = summarize(suite, trials_of(suite) if trials is None else trials, records, facts, baseline)
    # All texts are made before the first is written, so that a failure leaves the old report whole.
    texts = {
        JUNIT: junit_xml(results),
        METRICS: metrics_text(results),
        NOTE: note_markdown(results),
        HTML: html_report(results),
        RESULTS: results.to_json(),
    }
    for name, text in texts.items():
        write_atomic(out / name, text)
    return results


def job_from_environment(environ: Mapping[str, str]) -> JobRef:
    """The CI job, from GitLab's predefined variables; empty outside of a job."""
    return JobRef(
        id=environ.get("CI_JOB_ID", ""),
        url=environ.get("CI_JOB_URL", ""),
        pipeline_id=environ.get("CI_PIPELINE_ID", ""),
        project_path=environ.get("CI_PROJECT_PATH", ""),
        commit_sha=environ.get("CI_COMMIT_SHA", ""),
    )


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
