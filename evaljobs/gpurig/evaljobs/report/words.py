"""How figures and failures are put into words, the same in every report."""

from __future__ import annotations

from collections.abc import Iterator

from gpurig.evaljobs.records import ModelRef
from gpurig.evaljobs.results import GateRule, Metric, Results, SampleResult

_TITLES = {
    "pass_rate": "Samples passed",
    "generated_rate": "Samples generated",
    "check_pass_rate": "All checks passed",
    "grade_mean": "Mean grade",
    "grade_pass_rate": "Grades passed",
    "graded_rate": "Samples graded",
    "score_mean": "Mean score",
    "tokens_per_second": "Tokens per second",
}
_CHECK = "check_pass_rate."


def title(metric: Metric) -> str:
    """A metric's name for people; of several generators with the one it is of."""
    name = _TITLES.get(metric.name, metric.name)
    if metric.name.startswith(_CHECK):
        name = f"Check {metric.name.removeprefix(_CHECK)}"
    name = name.removeprefix("figure.")
    return f"{name}, {metric.generator}" if metric.generator else name


def models_of(results: Results) -> tuple[tuple[str, ModelRef], ...]:
    """Every model of the run with its part: "generator", "generator small", "grader"."""
    several = [(f"generator {one.name}".rstrip(), one.model) for one in results.generators]
    generators = several or [("generator", results.generator)]
    return (*generators, *([("grader", results.grader)] if results.grader else []))


def things(results: Results) -> str:
    """What the run counts: samples, or answers where a sample has several."""
    return "samples" if len({sample.of for sample in results.samples}) == len(results.samples) else "answers"


def passed_over(results: Results) -> tuple[str, ...]:
    """One line a model of whose name there were other files with other bytes: which one ran is no accident to hide."""
    return tuple(
        f"{model.name}: used from {model.place}; other bytes under that name in {', '.join(model.others)}"
        for model in dict.fromkeys(model for _, model in models_of(results))
        if model.others
    )


def is_proportion(metric: Metric) -> bool:
    """Whether it is a share of samples, which is shown in per cent with its interval."""
    return metric.low is not None and metric.high is not None


def amount(metric: Metric) -> str:
    """A metric's value: per cent for a proportion, three significant digits for anything else."""
    return percent(metric.value) if is_proportion(metric) else number(metric.value)


def interval(metric: Metric) -> str:
    """The 95 % interval in per cent, or nothing."""
    if metric.low is None or metric.high is None:
        return ""
    return f"{100 * metric.low:.1f} to {100 * metric.high:.1f} %"


def percent(value: float) -> str:
    """A share 0 … 1 with one decimal."""
    return f"{100 * value:.1f} %"


def number(value: float) -> str:
    """Three significant digits, never an exponent, no decimals from 100 on."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def rule_text(rule: GateRule) -> str:
    """What a rule demands: "pass_rate ≥ 0.8"."""
    demands = []
    if rule.minimum is not None:
        demands.append(f"≥ {rule.minimum:g}")
    if rule.maximum is not None:
        demands.append(f"≤ {rule.maximum:g}")
    whose = f" of {rule.generator}" if rule.generator else ""
    if rule.kind == "no-regression":
        return f"{rule.metric}{whose} no worse than the baseline (alpha {rule.alpha:g})"
    if rule.kind == "non-inferiority":
        return f"{rule.metric}{whose} worse than the baseline by less than {100 * (rule.margin or 0):g} points"
    return f"{rule.metric}{whose} {' and '.join(demands)}"


def rule_value(rule: GateRule) -> str:
    """What a rule came to: the metric's value, and why it failed where that says more."""
    return f"{number(rule.value)}{f' ({rule.reason})' if rule.reason else ''}"


def verdict(results: Results) -> str:
    """The run in one line."""
    passed = sum(sample.passed for sample in results.samples)
    word = "Gate passed" if results.gate.passed else "Gate FAILED"
    if results.gate.reason == "judge":
        word = "Gate FAILED (unfit grader)"
    elif not results.gate.rules:
        word = "No gate"
    return f"{word}: {passed} of {len(results.samples)} {things(results)} passed"


def reasons(sample: SampleResult, pass_score: float | None) -> Iterator[str]:
    """Why a sample failed, one line each; nothing for a sample that passed.

    A sample with a threshold passes by its score, whatever single checks say.
    """
    pass_score = pass_score if sample.pass_score is None else sample.pass_score
    if sample.threshold is not None and sample.score is not None and sample.finish != "error":
        if sample.passed:
            return
        yield f"score {sample.score:.2f} is below {sample.threshold:g}"
    if sample.finish == "error":
        yield f"generation: {sample.error or 'failed'}"
    for outcome in sample.checks:
        if not outcome.passed:
            # Most messages quote what they looked for; then the label would only repeat it.
            label = f" ({outcome.label})" if outcome.label and outcome.label not in outcome.message else ""
            yield f"{outcome.check}{label}: {outcome.message or 'failed'}"
    if sample.grade is None:
        if not sample.passed and pass_score is not None and sample.finish != "error":
            yield "grade: missing"
    elif sample.grade.error:
        yield f"grade: {sample.grade.error}"
    elif pass_score is not None and sample.grade.score < pass_score:
        yield f"grade: {sample.grade.verdict}, score {sample.grade.score:.2f} is below {pass_score:g}"


def worst_first(results: Results) -> list[SampleResult]:
    """The failed samples: errors first, then by share of failed checks, then by grade."""

    def badness(sample: SampleResult) -> tuple[bool, float, float]:
        failed = sum(not outcome.passed for outcome in sample.checks)
        score = sample.grade.score if sample.grade and not sample.grade.error else 0.0
        return sample.finish != "error", -failed / max(1, len(sample.checks)), score

    return sorted((sample for sample in results.samples if not sample.passed), key=badness)
