"""`gpurig-job` generate, check, grade and eval."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

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
from gpurig.evaljobs.options import ModelOptions, StageOptions, allow_check_option, model_options, stage_options
from gpurig.evaljobs.suites.selection import Selection

if TYPE_CHECKING:
    from gpurig.evaljobs.stages import RunSettings, StageOutcome


@click.command(epilog="Example: gpurig-job generate examples/ci-jobs --out report --shard 1/4")
@stage_options
@model_options
def generate(*, suite: Path, out: Path, selection: Selection, models: ModelOptions) -> None:
    """Let the generator answer every sample of a suite.

    Appends to generations.jsonl in the folder --out. Run again, it does only what is missing.
    """
    from gpurig.evaljobs import stages  # noqa: PLC0415 - heavy

    _run(stages.generate, StageOptions(suite, out, selection, models))


@click.command(epilog="Example: gpurig-job check examples/ci-jobs --out report")
@stage_options
@model_options
@allow_check_option
def check(*, suite: Path, out: Path, selection: Selection, models: ModelOptions, allowed: tuple[str, ...]) -> None:
    """Run the suite's checks over the generations.

    Appends to checks.jsonl in the folder --out. Needs no model but those that checks name. A failed check is a
    result, not an error: the gate decides in `gpurig-job report`.
    """
    from gpurig.evaljobs import stages  # noqa: PLC0415 - heavy

    _run(stages.check, StageOptions(suite, out, selection, models, allowed))


@click.command(epilog="Example: gpurig-job grade examples/ci-jobs --out report")
@stage_options
@model_options
def grade(*, suite: Path, out: Path, selection: Selection, models: ModelOptions) -> None:
    """Let the grader judge every generation.

    Appends to grades.jsonl in the folder --out. Run again, it does only what is missing.
    """
    from gpurig.evaljobs import stages  # noqa: PLC0415 - heavy

    _run(stages.grade, StageOptions(suite, out, selection, models))


def _run(stage: Callable[[RunSettings], StageOutcome], options: StageOptions) -> None:
    from gpurig.evaljobs.store import locked  # noqa: PLC0415 - heavy

    settings = options.settings()
    with locked(options.out):
        outcome = stage(settings)
    if outcome.failed:
        click.echo(f"{outcome.failed} samples failed; the report says why", err=True)


@click.command("eval", epilog="Example: gpurig-job eval examples/ci-jobs --out report --tag write --sample 10")
@stage_options
@model_options
@allow_check_option
@gpu_use_option
@baseline_option
@note_options
def eval_(
    *,
    suite: Path,
    out: Path,
    selection: Selection,
    models: ModelOptions,
    allowed: tuple[str, ...],
    gpu_use: Path,
    baseline: Path | None,
    note: Literal["auto", "always", "never"],
    note_token_file: Path | None,
) -> None:
    """All four stages, one after the other.

    Generates, checks, grades, then writes results.json, junit.xml, metrics.txt, note.md and report.html into the
    folder --out. Exits with 3 where the suite's gate fails. Run again, it does only what is missing.
    """
    from gpurig.evaljobs import stages  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.reporting import run_report  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.store import locked  # noqa: PLC0415 - heavy

    started, then = datetime.now(UTC), told_baseline(baseline)
    options = StageOptions(suite, out, selection, models, allowed)
    settings = options.settings()
    with locked(out):
        reused = stages.run_stages(settings)
        results = run_report(
            settings.suite,
            out,
            trials=settings.trials,
            shard=selection.shard,
            started=started,
            reused=reused,
            gpu_use=told_gpu_use(gpu_use),
            baseline=then,
        )
    conclude(results, out, NoteOptions(note, note_token_file))
