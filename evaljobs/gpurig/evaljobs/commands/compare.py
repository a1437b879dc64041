"""`gpurig-job compare`."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpurig.common.errors import GateFailedError
from gpurig.common.terminal import harmless, shorten, table

if TYPE_CHECKING:
    from gpurig.evaljobs.findings import Comparison

_WIDTH, _SHOWN = 80, 5


@click.command(epilog="Example: gpurig-job compare main/report report --fail-on-regression")
@click.argument("baseline", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--alpha", type=click.FloatRange(0, 0.5, min_open=True, max_open=True), default=0.05, show_default=True)
@click.option("--fail-on-regression", is_flag=True, help="Exit with 3 where a metric is significantly worse.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON (docs/formats.md).")
def compare(*, baseline: Path, run: Path, alpha: float, fail_on_regression: bool, as_json: bool) -> None:
    """Compare two runs of a suite, sample by sample.

    BASELINE and RUN are results.json files or their folders. Every metric is compared over the samples that both runs
    have: McNemar's exact test where a sample passes or not, a permutation test for scores, corrected for being several
    (Holm). What changed is listed, the worst first, and how small a loss these samples can show.
    """
    from gpurig.evaljobs.comparing.baseline import read_baseline  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.comparing.compare import compare as compared  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.report.changes import is_worse  # noqa: PLC0415 - heavy

    then, ref = read_baseline(baseline)
    now, _ = read_baseline(run)
    found = compared(now, then, ref)
    worse = [change for change in found.changes if is_worse(change, alpha)]
    if as_json:
        click.echo(found.model_dump_json(indent=1))
    else:
        click.echo("\n".join(_lines(found, alpha)))
    if worse and fail_on_regression:
        names = ", ".join(dict.fromkeys(change.metric for change in worse))
        raise GateFailedError(f"significantly worse than the baseline: {names}", hint="the table above has the figures")


def _lines(found: Comparison, alpha: float) -> list[str]:
    from gpurig.evaljobs.report.changes import change_rows  # noqa: PLC0415 - heavy

    changes = change_rows(found, alpha=alpha)
    several = len({row.generator for row in changes}) > 1
    rows = [
        [
            row.metric + (f" ({harmless(row.generator)})" if several else ""),
            row.before,
            row.after,
            row.change,
            row.interval,
            row.p,
            row.verdict.upper() if row.verdict == "worse" else row.verdict,
        ]
        for row in changes
    ]
    lines = [table(["metric", "before", "after", "change", "95 % interval", "p", ""], rows)] if rows else []
    for title, samples in (("worse", found.regressions), ("better", found.improvements)):
        if samples:
            lines.append(
                f"\n{len(samples)} samples {title}" + (f", the first {_SHOWN}:" if len(samples) > _SHOWN else ":")
            )
            lines += [f"  {shorten(harmless(one.id), 76)}" for one in samples[:_SHOWN]]
    lines += ["", *(line for remark in found.remarks for line in textwrap.wrap(harmless(remark), _WIDTH))]
    return lines
