"""What the report stage prints at its end: at most 80 columns, readable in a job's log."""

from __future__ import annotations

import textwrap

from gpurig.common.terminal import harmless, shorten, table
from gpurig.evaljobs.findings import Comparison
from gpurig.evaljobs.report.changes import baseline_text, change_rows
from gpurig.evaljobs.report.gpu_use import own_text
from gpurig.evaljobs.report.judges import unfit
from gpurig.evaljobs.report.words import (
    amount,
    interval,
    models_of,
    passed_over,
    reasons,
    rule_text,
    rule_value,
    things,
    title,
    verdict,
    worst_first,
)
from gpurig.evaljobs.results import Results

_WIDTH = 80
_SHOWN_FAILURES = 5


def terminal_summary(results: Results, folder: str) -> str:
    """The metrics, the first failures, the gate and where the files lie.

    Args:
        results: the run.
        folder: the report folder, as the user may open it.
    """
    models = [f"{part} {model.title}" for part, model in models_of(results)]
    head = ", ".join([f"{results.suite}: {len(results.samples)} {things(results)}", *models])
    lines = ["", *textwrap.wrap(harmless(head), _WIDTH, break_on_hyphens=False)]
    for told in passed_over(results):
        lines += textwrap.wrap(harmless(told), _WIDTH, break_on_hyphens=False)
    lines.append("")
    rows = [[title(metric), amount(metric), interval(metric), str(metric.n)] for metric in results.metrics]
    lines += [table(["metric", "value", "95 % interval", "samples"], rows), ""]
    if results.comparison is not None:
        lines += [*_since(results.comparison), ""]
    failed = worst_first(results)
    if failed:
        lines.append(f"{len(failed)} failed" + (f", the {_SHOWN_FAILURES} worst:" if len(failed) > 5 else ":"))
        width = max(len(harmless(sample.id)) for sample in failed[:_SHOWN_FAILURES])
        for sample in failed[:_SHOWN_FAILURES]:
            first = next(iter(reasons(sample, results.pass_score)), "failed")
            lines.append(shorten_end(f"  {harmless(sample.id).ljust(min(width, 30))}  {harmless(first)}"))
        lines.append("")
    for rule in results.gate.rules:
        told = f"  {'ok    ' if rule.passed else 'FAILED'}  {rule_text(rule)}: {rule_value(rule)}"
        lines += textwrap.wrap(told, _WIDTH, subsequent_indent="          ")
    if told := unfit(results.judges):
        lines += textwrap.wrap(harmless(f"  UNFIT   {told}"), _WIDTH, subsequent_indent="          ")
    use = own_text(results)
    if use:
        lines += textwrap.wrap(harmless(use), _WIDTH, break_on_hyphens=False)
    lines += [verdict(results), f"Report: {shorten(harmless(folder), 2000)}"]
    return "\n".join(lines)


def _since(found: Comparison) -> list[str]:
    """The metrics since the baseline, and what a reader has to know of it."""
    rows = [[row.metric, row.before, row.after, row.change, row.p, row.verdict] for row in change_rows(found)]
    lines = textwrap.wrap(harmless(f"Since the baseline {baseline_text(found)}:"), _WIDTH)
    if rows:
        lines.append(table(["metric", "before", "now", "change", "p", ""], rows))
    return [*lines, *(line for remark in found.remarks for line in textwrap.wrap(harmless(remark), _WIDTH))]


def shorten_end(line: str) -> str:
    """`line` in 80 columns, its end left out."""
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"
