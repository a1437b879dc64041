"""note.md: the one note on a merge request.

What a model wrote goes into a job's artifact with the project's trust, so the note must not let it act: GitLab runs a
quick action from any line that starts with `/` unless its own regular expression takes the line for code
(gitlabhq, lib/gitlab/quick_actions/extractor.rb), mentions people from `@name`, and renders some HTML. Here hostile
text stands in code only, every line of it behind a bar, so that no line of the note starts with `/` or closes a fence.
"""

from __future__ import annotations

import re

from gpurig.common.terminal import harmless
from gpurig.evaljobs.report.changes import baseline_text, change_rows
from gpurig.evaljobs.report.gpu_use import deaths, left_out, use_rows
from gpurig.evaljobs.report.judges import unfit
from gpurig.evaljobs.report.words import (
    amount,
    interval,
    models_of,
    number,
    passed_over,
    reasons,
    rule_text,
    rule_value,
    things,
    title,
    verdict,
    worst_first,
)
from gpurig.evaljobs.results import Results, SampleResult

# GitLab's limit is 1,000,000 characters; a note that people read is far shorter.
MAX_CHARACTERS = 60_000
_SHOWN_FAILURES = 10
_SHOWN_CHANGES = 5
_LONGEST_ANSWER = 2_000
_LONGEST_LINE = 240
_BAR = "│ "
_URL = re.compile(r"https?://[A-Za-z0-9_.:/~%-]+")


def marker(suite: str) -> str:
    """The hidden first line by which a suite's note is found again."""
    return f"<!-- gpurig:{re.sub(r'[^A-Za-z0-9_.-]', '_', suite).replace('--', '-_')} -->"


def note_markdown(results: Results) -> str:
    """The note's text, at most `MAX_CHARACTERS` long."""
    failed = worst_first(results)
    icon = (":white_check_mark: " if results.gate.passed else ":x: ") if results.gate.rules else ""
    head = [
        marker(results.suite),
        f"### {icon}Eval {_code(results.suite)}",
        "",
        f"**{verdict(results)}.** {_models(results)}.",
        "",
        *_gate(results),
        *_metrics(results),
        *_comparison(results),
        *_judges(results),
        *_gpu_use(results),
    ]
    tail = ["", *_footer(results)]
    room = MAX_CHARACTERS - sum(len(line) + 1 for line in (*head, *tail)) - 200
    body: list[str] = []
    shown = 0
    for sample in failed[:_SHOWN_FAILURES]:
        lines = _failure(sample, results.pass_score)
        cost = sum(len(line) + 1 for line in lines)
        if cost > room:
            break
        room -= cost
        body += lines
        shown += 1
    if shown:
        count = f"the {shown} worst of {len(failed)} failures" if shown < len(failed) else f"{len(failed)} failed"
        body = ["", "<details>", f"<summary>Failures: {count}</summary>", "", *body, "</details>"]
    return "\n".join([*head, *body, *tail]) + "\n"


def _models(results: Results) -> str:
    text = ", ".join(f"{_cell(part)} {_code(model.title)}" for part, model in models_of(results))
    return text[0].upper() + text[1:]


def _gate(results: Results) -> list[str]:
    lines = []
    for rule in results.gate.rules:
        mark = ":white_check_mark:" if rule.passed else ":x:"
        lines.append(
            f"- {mark} {_code(rule_text(rule))} is {_code(rule_value(rule)) if rule.reason else number(rule.value)}"
        )
    return [*lines, ""] if lines else []


def _metrics(results: Results) -> list[str]:
    lines = ["| Metric | Value | 95 % interval | Samples |", "|:--|--:|:-:|--:|"]
    lines += [
        f"| {_cell(title(metric))} | {amount(metric)} | {interval(metric)} | {metric.n} |" for metric in results.metrics
    ]
    return lines


def _comparison(results: Results) -> list[str]:
    """What became of the metrics since the baseline, and of which samples."""
    found = results.comparison
    if found is None:
        return []
    several = len({row.generator for row in change_rows(found)}) > 1
    lines = ["", f"Since the baseline {_code(baseline_text(found))}:", ""]
    if found.changes:
        lines += ["| Metric | Before | Now | Change | 95 % interval | p | |", "|:--|--:|--:|--:|:-:|--:|:--|"]
    for row in change_rows(found):
        whose = f" {_code(row.generator)}" if several else ""
        mark = {"worse": ":x: worse", "better": ":white_check_mark: better", "": ""}[row.verdict]
        figures = f"{row.before} | {row.after} | {row.change} | {row.interval} | {row.p} | {mark}"
        lines.append(f"| {_cell(row.metric)}{whose} | {figures} |")
    for how, samples in (("worse", found.regressions), ("better", found.improvements)):
        if samples:
            names = ", ".join(_code(one.id) for one in samples[:_SHOWN_CHANGES])
            more = f" and {len(samples) - _SHOWN_CHANGES} more" if len(samples) > _SHOWN_CHANGES else ""
            lines += ["", f"{len(samples)} {how}: {names}{more}"]
    return [*lines, *(line for remark in found.remarks for line in ("", _code(remark)))]


def _judges(results: Results) -> list[str]:
    """How far the graders agree with people."""
    lines = []
    for judge in results.judges:
        between = (
            ""
            if judge.kappa_low is None or judge.kappa_high is None
            else f" ({judge.kappa_low:.2f} to {judge.kappa_high:.2f})"
        )
        lines += ["", f"Grader's agreement with people: kappa {judge.kappa:.2f}{between}, {judge.n} answers."]
    if told := unfit(results.judges):
        lines += ["", f":x: {_code(told)}"]
    return lines


def _gpu_use(results: Results) -> list[str]:
    rows, died, missing = use_rows(results), deaths(results), left_out(results)
    lines = []
    if rows:
        lines += ["", "| Job | GPU | Peak memory | GPU-seconds | Energy |", "|:--|:--|--:|--:|--:|"]
        lines += [
            f"| {_job(row.job_id, results)}{f' ({row.job})' if row.job else ''} | {_cell(row.gpu)} | {row.peak} "
            f"| {row.seconds} | {row.energy} |"
            for row in rows
        ]
    if missing and rows:
        lines += ["", f"{missing} earlier jobs are left out."]
    for line in died:
        lines += ["", f":warning: {line}"]
    return lines


def _job(job_id: str, results: Results) -> str:
    """A job's number, with its page where the reporting job's is known."""
    url = results.job.url
    if not _URL.fullmatch(url) or not url.endswith(f"/{results.job.id}"):
        return job_id
    return f"[{job_id}]({url.removesuffix(results.job.id)}{job_id})"


def _failure(sample: SampleResult, pass_score: float | None) -> list[str]:
    lines = [f"- {_code(sample.id)}", "", "  ```text"]
    lines += [f"  {_BAR}{_line(reason)}" for reason in reasons(sample, pass_score)]
    answer = sample.output[:_LONGEST_ANSWER].rstrip()
    if answer:
        lines.append(f"  {_BAR}".rstrip())
        lines += [f"  {_BAR}{_line(line)}".rstrip() for line in answer.split("\n")]
    if len(sample.output) > _LONGEST_ANSWER:
        lines.append(f"  {_BAR}… ({len(sample.output):,} characters)")
    return [*lines, "  ```", ""]


def _footer(results: Results) -> list[str]:
    words = [f"{results.reused} of {len(results.samples)} {things(results)} reused"] if results.reused else []
    url = results.job.url
    if _URL.fullmatch(url):
        words.append(f"[job {_digits(results.job.id)}]({url})")
        words.append(f"[report files]({url}/artifacts/browse)")
    if re.fullmatch(r"[0-9a-f]{7,64}", results.job.commit_sha):
        words.append(f"commit {results.job.commit_sha[:8]}")
    words.append("gpurig")
    return [*(_code(line) for line in passed_over(results)), f"<sub>{' · '.join(words)}</sub>"]


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)


def _line(text: str) -> str:
    """One line of hostile text: nothing invisible, no line end, not endless."""
    plain = harmless(text)
    return plain if len(plain) <= _LONGEST_LINE else plain[:_LONGEST_LINE] + "…"


def _code(text: str) -> str:
    """A code span that `text` cannot leave."""
    plain = _line(text)
    ticks = "`" * (1 + max((len(run) for run in re.findall(r"`+", plain)), default=0))
    pad = " " if plain.startswith("`") or plain.endswith("`") or not plain else ""
    return f"{ticks}{pad}{plain}{pad}{ticks}"


def _cell(text: str) -> str:
    """Words in a table: the kinds of checks are ours, anything else loses what Markdown would obey."""
    return re.sub(r"[^A-Za-z0-9 ,_.:/+-]", "_", _line(text)).replace("_", r"\_")
