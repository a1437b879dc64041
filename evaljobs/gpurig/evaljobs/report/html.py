"""report.html: one file that needs nothing else, from a disk, an artifact page or a mail.

Everything a model wrote passes through autoescaping into text nodes; the policy in the page's own head allows exactly
its one style sheet and its one script, by their hashes, and no request at all. Charts and samples are plain HTML and
SVG: without JavaScript only the filter is missing.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from gpurig.common.amounts import energy_text, gib_text, seconds_text
from gpurig.common.errors import PrerequisiteError
from gpurig.common.terminal import harmless
from gpurig.common.version import __version__
from gpurig.evaljobs.report import charts
from gpurig.evaljobs.report.changes import Moved, baseline_text, change_rows, moved, side_by_side
from gpurig.evaljobs.report.gpu_use import deaths, left_out, run_use, use_rows
from gpurig.evaljobs.report.judges import judge_rows, unfit
from gpurig.evaljobs.report.words import (
    amount,
    interval,
    models_of,
    reasons,
    rule_text,
    rule_value,
    things,
    title,
)
from gpurig.evaljobs.results import Metric, Results, SampleResult

# A page stays readable and quick; the whole text is in results.json.
LONGEST_TEXT = 20_000


@dataclass(frozen=True)
class Card:
    """One of the figures at the top."""

    title: str
    value: str
    detail: str


@dataclass(frozen=True)
class SampleView:
    """A sample as the page shows it; all texts are free of control characters and of endless length."""

    number: int
    id: str
    tags: tuple[str, ...]
    status: str
    input: str
    output: str
    reference: str
    reasons: tuple[str, ...]
    checks: tuple[tuple[bool, str, str], ...]
    grade: str
    verdict: str
    probabilities: tuple[tuple[str, float, str], ...]
    facts: str
    change: str = ""
    sides: tuple[tuple[str, str, str], ...] = ()


def html_report(results: Results) -> str:
    """The page's text.

    Raises:
        PrerequisiteError: the eval extra (jinja2) is not installed.
    """
    try:
        import jinja2  # noqa: PLC0415 - only this command needs it
        from jinja2.sandbox import SandboxedEnvironment  # noqa: PLC0415
    except ImportError as error:
        raise PrerequisiteError("the HTML report needs jinja2", hint="pip install 'gpurig[eval]'") from error

    changed = moved(results)
    style, script = _asset("report.css"), _asset("report.js")
    environment = SandboxedEnvironment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = _plain
    template = environment.from_string(_asset("report.html.j2"))
    return template.render(
        results=results,
        version=__version__,
        models=models_of(results),
        things=things(results),
        style=style,
        script=script,
        style_hash=_source_hash(style),
        script_hash=_source_hash(script),
        cards=_cards(results),
        rules=[(rule_text(rule), rule_value(rule), rule.passed) for rule in results.gate.rules],
        metrics=[(title(m), m.name, amount(m), interval(m), m.n) for m in results.metrics],
        bars=charts.rate_bars(results),
        tag_bars=charts.tag_bars(results),
        grades=charts.grade_histogram(results),
        seconds=charts.seconds_histogram(results),
        changes=[] if results.comparison is None else change_rows(results.comparison),
        baseline="" if results.comparison is None else baseline_text(results.comparison),
        remarks=() if results.comparison is None else results.comparison.remarks,
        judges=[(judge.n, judge_rows(judge)) for judge in results.judges],
        unfit=unfit(results.judges),
        uses=use_rows(results),
        deaths=deaths(results),
        left_out=left_out(results),
        samples=[_view(index, sample, results, changed) for index, sample in enumerate(results.samples, start=1)],
        tags=sorted({_plain(tag) for sample in results.samples for tag in sample.tags}),
        job_url=results.job.url if re.fullmatch(r"https?://[^\s\"'<>]+", results.job.url) else "",
        passed=sum(sample.passed for sample in results.samples),
    )


def _asset(name: str) -> str:
    return (resources.files("gpurig.evaljobs.report") / "assets" / name).read_text(encoding="utf-8")


def _source_hash(text: str) -> str:
    """A Content-Security-Policy source that allows exactly this inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _plain(text: str) -> str:
    """`text` with control characters shown as codes, cut at `LONGEST_TEXT` characters."""
    if len(text) > LONGEST_TEXT:
        text = f"{text[:LONGEST_TEXT]}\n… {len(text):,} characters in all; results.json has the rest"
    return harmless(text, newlines=True)


def _cards(results: Results) -> list[Card]:
    wanted = ("pass_rate", "grade_mean", "generated_rate", "tokens_per_second")
    cards = [_card(metric) for name in wanted for metric in results.metrics if metric.name == name]
    use = run_use(results)
    if use is not None and use.memory_peak_bytes is not None:
        of = "" if use.memory_total_bytes is None else f"of {gib_text(use.memory_total_bytes)} GiB"
        cards.append(Card("GPU memory, peak", f"{gib_text(use.memory_peak_bytes)} GiB", of))
    if use is not None and use.gpu_seconds is not None:
        energy = "" if use.energy_joules is None else energy_text(use.energy_joules)
        cards.append(Card("GPU-seconds", seconds_text(use.gpu_seconds), energy))
    return cards


def _card(metric: Metric) -> Card:
    between = interval(metric)
    return Card(title(metric), amount(metric), f"95 %: {between}" if between else f"{metric.n} samples")


def _view(index: int, sample: SampleResult, results: Results, changed: Mapping[str, Moved]) -> SampleView:
    grade = sample.grade
    change, before = changed.get(sample.id, ("", None))
    sides = () if before is None else side_by_side(_plain(before.was_output), _plain(sample.output))
    facts = [f"{sample.prompt_tokens} tokens in", f"{sample.completion_tokens} out", f"{sample.seconds:.2f} s"]
    if sample.finish == "length":
        facts.append("cut at the token limit")
    return SampleView(
        number=index,
        id=_plain(sample.id),
        tags=tuple(_plain(tag) for tag in sample.tags),
        status="error" if sample.finish == "error" else "passed" if sample.passed else "failed",
        input=_plain(sample.input),
        output=_plain(sample.output),
        reference=_plain(sample.reference),
        reasons=tuple(_plain(reason) for reason in reasons(sample, results.pass_score)),
        checks=tuple(
            (outcome.passed, _plain(f"{outcome.check} {outcome.label}".strip()), _plain(outcome.message))
            for outcome in sample.checks
        ),
        grade="" if grade is None or grade.error else f"{grade.score:.2f}",
        verdict="" if grade is None else _plain(grade.error or grade.verdict),
        probabilities=tuple(
            (_plain(verdict), share, f"{100 * share:.0f} %") for verdict, share in grade.probabilities.items()
        )
        if grade
        else (),
        facts=" · ".join(facts),
        change=change,
        sides=tuple((side.kind, side.before, side.after) for side in sides),
    )
