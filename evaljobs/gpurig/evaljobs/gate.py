"""The gate: a suite's demands on the run's metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gpurig.common.errors import InputError
from gpurig.evaljobs.results import Gate, GateRule, Metric
from gpurig.evaljobs.suites.suite import GateRuleSpec


def apply_gate(rules: Sequence[GateRuleSpec], metrics: Sequence[Metric]) -> Gate:
    """Hold every rule against its metric; a limit itself is good enough. A gate without rules passes.

    Raises:
        InputError: a rule names a metric that the run does not have, or one that is no number.
    """
    values = {metric.name: metric.value for metric in metrics}
    outcomes = tuple(_apply(rule, values) for rule in rules)
    return Gate(passed=all(outcome.passed for outcome in outcomes), rules=outcomes)


def _apply(rule: GateRuleSpec, values: dict[str, float]) -> GateRule:
    value = values.get(rule.metric)
    if value is None:
        raise InputError(
            f'the gate asks for "{rule.metric}", which this run did not measure (it has: {", ".join(values)})',
            hint="correct the suite's gate, or run all of its samples",
        )
    if not math.isfinite(value):
        raise InputError(
            f'the gate asks for "{rule.metric}", which is {value} in this run',
            hint="look at the records: a score or a time in them is not a number",
        )
    high_enough = rule.min is None or value >= rule.min
    low_enough = rule.max is None or value <= rule.max
    return GateRule(
        metric=rule.metric, minimum=rule.min, maximum=rule.max, value=value, passed=high_enough and low_enough
    )
