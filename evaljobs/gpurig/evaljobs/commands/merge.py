"""`gpurig-job merge`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

import click

from gpurig.evaljobs.commands.report import (
    NoteOptions,
    baseline_option,
    conclude,
    gpu_use_option,
    note_options,
    told_baseline,
    told_gpu_use,
)
from gpurig.evaljobs.options import stage_options
from gpurig.evaljobs.suites.selection import Selection


@click.command(epilog="Example: gpurig-job merge evals/ci-jobs report-1 report-2 --out report")
@stage_options
@click.argument("parts", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False))
@gpu_use_option
@baseline_option
@note_options
def merge(
    *,
    suite: Path,
    parts: tuple[Path, ...],
    out: Path,
    selection: Selection,
    gpu_use: Path,
    baseline: Path | None,
    note: Literal["auto", "always", "never"],
    note_token_file: Path | None,
) -> None:
    """Put the parts of a run together that jobs with --shard made.

    PARTS are the folders of all of them. Writes their records and the reports of the whole into the folder --out,
    judges the gate and writes the note: what a run that was never divided would have done. Give it the selection that
    the parts had, but for --shard.
    """
    from gpurig.common.errors import InputError  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.merging import merge_records, read_parts  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.reporting import run_report  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.store import locked  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.suites.suite import load_suite  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.suites.trials import select_trials  # noqa: PLC0415 - heavy

    if selection.shard is not None:
        raise InputError("--shard makes a part, and merge puts parts together", hint="leave it out")
    then, read = told_baseline(baseline), load_suite(suite)
    trials, found = select_trials(read, selection), read_parts(read, parts)
    with locked(out):
        merge_records(found, out, trials)
        results = run_report(
            read,
            out,
            trials=trials,
            started=datetime.fromisoformat(found.started),
            gpu_use=told_gpu_use(gpu_use),
            baseline=then,
        )
    conclude(results, out, NoteOptions(note, note_token_file))
