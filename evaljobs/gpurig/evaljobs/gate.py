"""The gate: a suite's demands on the run's metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gpurig.common.errors import InputError
from gpurig.evaljobs.findings import JudgeFitness
from gpurig.evaljobs.results import Gate, GateRule, Metric
from gpurig.evaljobs.suites.suite import GateRuleSpec


def apply_gate(rules: Sequence[GateRuleSpec], metrics: Sequence[Metric]) -> Gate:
    """Hold every rule against its metric; a limit itself is good enough. A gate without rules passes.

    A rule that names no generator is held against every generator's metric. Rules about the change since a baseline are
    passed over (`comparing.demands`).

    Raises:
        InputError: a rule names a metric that the run does not have, or one that is no number.
    """
    outcomes = tuple(_apply(rule, metric) for rule in rules if not rule.relative for metric in _meant(rule, metrics))
    passed = all(outcome.passed for outcome in outcomes)
    return Gate(passed=passed, reason="" if passed else "threshold", rules=outcomes)


def judged(gate: Gate, judges: Sequence[JudgeFitness]) -> Gate:
    """The gate of a run whose judges were calibrated: where one is unfit, nothing that it said counts, and it fails."""
    if all(judge.fit for judge in judges):
        return gate
    return gate.model_copy(update={"passed": False, "reason": "judge"})


def _meant(rule: GateRuleSpec, metrics: Sequence[Metric]) -> list[Metric]:
    of_generator = [metric for metric in metrics if rule.generator in {None, metric.generator}]
    found = [metric for metric in of_generator if metric.name == rule.metric]
    # Every generator must have it: one that was not measured has not reached it.
    if not found or len(found) < len({metric.generator for metric in of_generator}):
        whose = f' of the generator "{rule.generator}"' if rule.generator is not None else ""
        known = ", ".join(dict.fromkeys(metric.name for metric in of_generator)) or "nothing of it"
        raise InputError(
            f'the gate asks for "{rule.metric}"{whose}, which this run did not measure (it has: {known})',
            hint="correct the suite's gate, or run all of its samples and generators",
        )
    return found


def _apply(rule: GateRuleSpec, metric: Metric) -> GateRule:
    value = metric.value
    if not math.isfinite(value):
        raise InputError(
            f'the gate asks for "{rule.metric}", which is {value} in this run',
            hint="look at the records: a score or a time in them is not a number",
        )
    high_enough = rule.min is None or value >= rule.min
    low_enough = rule.max is None or value <= rule.max
    return GateRule(
        metric=rule.metric,
        generator=metric.generator,
        minimum=rule.min,
        maximum=rule.max,
        value=value,
        passed=high_enough and low_enough,
    )
