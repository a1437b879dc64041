"""A run's metrics, sample by sample: what they are means of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from gpurig.evaljobs.results import Results, SampleResult, grade_passes
from gpurig.evaljobs.statistics.reducers import Reducer, parse_reducer

# A metric's value by sample.
Values = Mapping[str, float]


def sample_values(results: Results, generator: str) -> dict[str, Values]:
    """Each metric's value of every sample, by the metric's name; the mean over the samples is the metric.

    A sample's epochs are put together as the run does it. Metrics that are no means over samples (tokens a second) are
    left out.
    """
    epochs: dict[str, list[SampleResult]] = {}
    for trial in results.samples:
        if trial.generator == generator:
            epochs.setdefault(trial.of, []).append(trial)
    trials = [trial for several in epochs.values() for trial in several]
    mean, reducer = Reducer(), parse_reducer(results.reduce)

    def share(good: Callable[[SampleResult], bool], how: Reducer) -> Values:
        return {name: how.reduce([good(trial) for trial in several]) for name, several in epochs.items()}

    def average(value: Callable[[SampleResult], float | None]) -> Values:
        found = {name: [value(trial) for trial in several] for name, several in epochs.items()}
        known = {name: [one for one in values if one is not None] for name, values in found.items()}
        return {name: math.fsum(values) / len(values) for name, values in known.items() if values}

    def passed(kinds: Sequence[str] | None) -> Values:
        def own(trial: SampleResult) -> Iterable[bool]:
            return (outcome.passed for outcome in trial.checks if kinds is None or outcome.check in kinds)

        having = {name: [one for one in several if any(True for _ in own(one))] for name, several in epochs.items()}
        return {name: reducer.reduce([all(own(one)) for one in several]) for name, several in having.items() if several}

    found = {
        "pass_rate": share(lambda trial: trial.passed, reducer),
        "generated_rate": share(lambda trial: trial.finish != "error", mean),
    }
    kinds = dict.fromkeys(outcome.check for trial in trials for outcome in trial.checks)
    if kinds:
        found["check_pass_rate"] = passed(None)
    found |= {f"check_pass_rate.{kind}": passed((kind,)) for kind in kinds}
    if results.grader is not None:
        found["graded_rate"] = share(lambda trial: bool(trial.grade and not trial.grade.error), mean)
        found["grade_pass_rate"] = share(lambda trial: grade_passes(trial.grade, trial.pass_score), reducer)
        found["grade_mean"] = average(lambda trial: trial.grade.score if trial.grade and not trial.grade.error else 0.0)
    if any(trial.score is not None for trial in trials):
        found["score_mean"] = average(lambda trial: trial.score)
    figures = dict.fromkeys(name for trial in trials for name in trial.figures)
    return found | {f"figure.{name}": average(_figure(name)) for name in figures}


def _figure(name: str) -> Callable[[SampleResult], float | None]:
    return lambda trial: trial.figures.get(name)
