"""`gpurig-job calibrate`."""

from __future__ import annotations

from pathlib import Path

import click

from gpurig.common.errors import GateFailedError
from gpurig.common.terminal import harmless, shorten, table
from gpurig.evaljobs.options import ModelOptions, StageOptions, model_options
from gpurig.evaljobs.suites.selection import Selection

_SHOWN = 5
FITNESS = "judge.json"


@click.command(epilog="Example: gpurig-job calibrate examples/ci-jobs --out report")
@click.argument("suite", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("report"),
    show_default=True,
    help="The folder of the records and reports.",
)
@model_options
def calibrate(*, suite: Path, out: Path, models: ModelOptions) -> None:
    """Say how far a suite's grader agrees with people.

    The grader judges its calibration set: answers that people judged, and good ones that were spoilt on purpose. Prints
    its agreement (Cohen's kappa), how many good and bad answers it recognizes, and how far its probabilities are right;
    writes calibration.jsonl and judge.json into the folder --out. Exits with 3 where it misses one of the suite's
    floors. Run again, it judges only what is missing.
    """
    from gpurig.common.files import write_atomic  # noqa: PLC0415 - heavy
    from gpurig.evaljobs import stages  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.grading.calibration import calibration_items, fitness  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.report.judges import judge_rows, unfit  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.store import locked, read_calibration  # noqa: PLC0415 - heavy

    settings = StageOptions(suite, out, Selection(), models).settings()
    with locked(out):
        stages.calibrate(settings)
        grader, items = settings.suite.grader, calibration_items(settings.suite)
        if grader is None:
            raise AssertionError("the stage has refused it")
        grades = read_calibration(out, settings.suite)
        judge = fitness(grader, items, grades)
        write_atomic(out / FITNESS, judge.model_dump_json(indent=1) + "\n")
    spoilt = f", {judge.corrupted} spoilt ones" if judge.corrupted else ""
    click.echo(f"\n{harmless(grader.model)}: {judge.n} answers that people judged{spoilt}\n")
    click.echo(table(["measure", "value", "95 % interval", "floor", ""], judge_rows(judge)))
    human = {item.id: item.value for item in items}
    for title, names in (("people differ", judge.disagreements), ("spoilt, and found good", judge.corrupted_passed)):
        for number, name in enumerate(names[:_SHOWN]):
            line = f"  {harmless(name)}: people {human[name]:g}, grader {grades[name].score:.2f}"
            click.echo(("" if number else f"\n{title}, the first {min(len(names), _SHOWN)}:\n") + shorten(line, 80))
    if text := unfit([judge]):
        raise GateFailedError(text, hint=f"{out / FITNESS} names the answers; docs/graders.md says what helps")
