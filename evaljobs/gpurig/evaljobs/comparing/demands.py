"""The gate's rules about a run's change since the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpurig.evaljobs.comparing.compare import more_is_worse
from gpurig.evaljobs.results import Gate, GateRule, Metric
from gpurig.evaljobs.statistics.paired import Pair, difference, holm
from gpurig.evaljobs.suites.suite import GateRuleSpec

Pairs = Mapping[tuple[str, str], Sequence[Pair]]


def with_relative(gate: Gate, rules: Sequence[GateRuleSpec], metrics: Sequence[Metric], pairs: Pairs | None) -> Gate:
    """The gate with what its relative rules came to.

    - no_regression fails where the loss is significant: the one-sided p of a paired test, after Holm's correction over
      the gate's rules of this kind, is below alpha.
    - margin passes where the loss is shown to be smaller: the lower end of the two-sided 1 - 2 alpha interval of the
      difference is above -margin.

    Args:
        gate: of the thresholds.
        rules: the suite's; those that are not relative are passed over.
        metrics: of the run.
        pairs: from `compare.paired`; None without a baseline.
    """
    wanted = [(rule, metric) for rule in rules if rule.relative for metric in _meant(rule, metrics)]
    losses = {
        (metric.generator, metric.name): _turned(metric.name, pairs[metric.generator, metric.name])
        for _, metric in wanted
        if pairs is not None and (metric.generator, metric.name) in pairs
    }
    tested = [
        (metric.generator, metric.name)
        for rule, metric in wanted
        if rule.no_regression and (metric.generator, metric.name) in losses
    ]
    corrected = dict(zip(tested, holm([difference(losses[key]).p_worse for key in tested]), strict=True))
    outcomes = tuple(
        _outcome(rule, metric, losses.get((metric.generator, metric.name)), corrected, there=pairs is not None)
        for rule, metric in wanted
    )
    passed = gate.passed and all(outcome.passed for outcome in outcomes)
    reason = "regression" if not all(outcome.passed for outcome in outcomes) else gate.reason
    return gate.model_copy(update={"passed": passed, "reason": reason, "rules": (*gate.rules, *outcomes)})


def _meant(rule: GateRuleSpec, metrics: Sequence[Metric]) -> list[Metric]:
    return [metric for metric in metrics if metric.name == rule.metric and rule.generator in {None, metric.generator}]


def _turned(metric: str, pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs of which more is better."""
    return [(-before, -after) for before, after in pairs] if more_is_worse(metric) else list(pairs)


def _outcome(
    rule: GateRuleSpec,
    metric: Metric,
    pairs: Sequence[Pair] | None,
    corrected: Mapping[tuple[str, str], float],
    *,
    there: bool,
) -> GateRule:
    made = GateRule(
        metric=rule.metric,
        generator=metric.generator,
        kind="no-regression" if rule.no_regression else "non-inferiority",
        alpha=rule.alpha,
        margin=rule.margin,
        value=metric.value,
        passed=True,
    )
    if pairs is None:
        missing = rule.missing_baseline == "fail"
        return made.model_copy(
            update={
                "passed": not missing,
                "reason": f"the baseline has no {rule.metric}" if there else "there is no baseline to compare with",
            }
        )
    found = difference(pairs, confidence=1 - 2 * rule.alpha)
    change = -found.value if more_is_worse(rule.metric) else found.value
    points = f"{_amount(change, rule.metric):+.3g} {_unit(rule.metric)} since the baseline ({len(pairs)} samples)"
    if rule.no_regression:
        p = corrected[metric.generator, metric.name]
        lost = found.value < 0 and p < rule.alpha
        return made.model_copy(update={"p": p, "passed": not lost, "reason": f"{points}, p = {p:.3g}" if lost else ""})
    low = found.low
    shown = rule.margin is not None and low > -rule.margin
    said = f"{points}: a loss of {_amount(max(0.0, -low), rule.metric):.3g} cannot be ruled out"
    return made.model_copy(update={"passed": shown, "reason": "" if shown else said})


def _unit(metric: str) -> str:
    """Shares and scores are told in points of a hundred, figures as they are."""
    return "of it" if metric.startswith("figure.") else "points"


def _amount(value: float, metric: str) -> float:
    return value if metric.startswith("figure.") else 100 * value
