"""A run against a baseline: pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from gpurig.evaljobs.comparing.values import sample_values
from gpurig.evaljobs.findings import BaselineRef, Comparison, MetricChange, SampleChange
from gpurig.evaljobs.results import Results, SampleResult
from gpurig.evaljobs.statistics.paired import Pair, detectable_loss, difference, holm, samples_for

# Of these more is worse; what a check measures beside is taken for good.
_WORSE = ("figure.seconds", "figure.tokens", "figure.joules", "figure.edit_distance", "figure.perplexity")
_MOST_CHANGES = 200
# A loss that a suite should be able to see: told where it cannot.
_WORTH_SEEING = 0.05


def compare(now: Results, then: Results, baseline: BaselineRef) -> Comparison:
    """What became of every metric, over the samples that both runs have, and which samples came out differently.

    Generators are paired by name; where each run has one, they are paired whatever their names are. A sample whose
    question is another one now is no partner.
    """
    before_of, edited = _partners(now, then), _edited(now, then)
    pairs = paired(now, then)
    changes = [_change(metric, generator, some) for (generator, metric), some in pairs.items()]
    ours, theirs = (dict.fromkeys(trial.of for trial in run.samples) for run in (now, then))
    only_here = [name for name in ours if name not in theirs]
    only_there = [name for name in theirs if name not in ours]
    adjusted = holm([change.p for change in changes if change.p is not None])
    changes = [change.model_copy(update={"p_adjusted": p}) for change, p in zip(changes, adjusted, strict=True)]
    moved = list(_moved(now, then, before_of, edited))
    return Comparison(
        baseline=baseline,
        changes=tuple(changes),
        regressions=tuple(one for one in moved if _loss(one) > 0)[:_MOST_CHANGES],
        improvements=tuple(one for one in reversed(moved) if _loss(one) < 0)[:_MOST_CHANGES],
        only_here=tuple(only_here),
        only_there=tuple(only_there),
        remarks=tuple(_remarks(now, then, edited, pairs, (len(only_here), len(only_there)))),
    )


def paired(now: Results, then: Results) -> dict[tuple[str, str], list[Pair]]:
    """(before, after) of every sample that both runs have, by generator and metric."""
    edited = _edited(now, then)
    found: dict[tuple[str, str], list[Pair]] = {}
    for generator, before in _partners(now, then).items():
        earlier = sample_values(then, before)
        for metric, values in sample_values(now, generator).items():
            was = earlier.get(metric, {})
            pairs = [(was[name], value) for name, value in values.items() if name in was and name not in edited]
            if pairs:
                found[generator, metric] = pairs
    return found


def more_is_worse(metric: str) -> bool:
    """Whether a metric falls when things get better."""
    return metric in _WORSE


def _partners(now: Results, then: Results) -> dict[str, str]:
    """The baseline's generator for each of ours."""
    ours = dict.fromkeys(trial.generator for trial in now.samples)
    theirs = dict.fromkeys(trial.generator for trial in then.samples)
    if len(ours) == len(theirs) == 1:
        return dict(zip(ours, theirs, strict=True))
    return {name: name for name in ours if name in theirs}


def _edited(now: Results, then: Results) -> frozenset[str]:
    asked = {trial.of: (trial.input, trial.reference) for trial in then.samples}
    return frozenset(
        trial.of
        for trial in now.samples
        if asked.get(trial.of, (trial.input, trial.reference)) != (trial.input, trial.reference)
    )


def _change(metric: str, generator: str, pairs: Sequence[Pair]) -> MetricChange:
    before, after = (math.fsum(pair[place] for pair in pairs) / len(pairs) for place in (0, 1))
    found = difference(pairs)
    return MetricChange(
        metric=metric,
        generator=generator,
        n=len(pairs),
        before=before,
        after=after,
        low=found.low,
        high=found.high,
        test=found.test,
        p=found.p,
        effect=found.effect,
        detectable=detectable_loss(pairs),
        worse=more_is_worse(metric),
    )


def _moved(now: Results, then: Results, before_of: Mapping[str, str], edited: frozenset[str]) -> Iterator[SampleChange]:
    """Answers that came out differently, the largest loss first."""
    earlier = {(trial.generator, trial.of, trial.epoch): trial for trial in then.samples}
    found = []
    for trial in now.samples:
        was = earlier.get((before_of.get(trial.generator, ""), trial.of, trial.epoch))
        if was is None or trial.of in edited or trial.generator not in before_of:
            continue
        if (was.passed, _score(was)) != (trial.passed, _score(trial)):
            found.append(
                SampleChange(
                    id=trial.id,
                    was_passed=was.passed,
                    passed=trial.passed,
                    was_score=_score(was),
                    score=_score(trial),
                    was_output=was.output,
                )
            )
    yield from sorted(found, key=lambda one: -_loss(one))


def _score(trial: SampleResult) -> float | None:
    if trial.score is not None:
        return trial.score
    return trial.grade.score if trial.grade is not None and not trial.grade.error else None


def _loss(change: SampleChange) -> float:
    """How much worse it is now: passing counts more than any score."""
    scores = (change.was_score or 0.0) - (change.score or 0.0)
    return 2.0 * (change.was_passed - change.passed) + scores


def _remarks(
    now: Results,
    then: Results,
    edited: frozenset[str],
    pairs: Mapping[tuple[str, str], Sequence[Pair]],
    alone: tuple[int, int],
) -> Iterator[str]:
    if now.suite != then.suite:
        yield f'the baseline is of the suite "{then.suite}"'
    elif now.suite_sha256 != then.suite_sha256:
        yield "the suite has changed since the baseline: only samples that ask the same are compared"
    if edited:
        yield f"{_count(len(edited), 'sample')} with another question or reference now: not compared"
    only_here, only_there = alone
    if only_here or only_there:
        yield f"{_count(only_here, 'sample')} without a partner in the baseline, {only_there} of it without one here"
    known = _partners(now, then)
    missing = dict.fromkeys(trial.generator for trial in now.samples if trial.generator not in known)
    if missing:
        yield f"the baseline has no generator {', '.join(missing)}"
    if (now.epochs, now.reduce) != (then.epochs, then.reduce):
        yield f"the baseline has {then.epochs} epochs ({then.reduce}), this run {now.epochs} ({now.reduce})"
    if not pairs:
        yield "no sample is in both runs: nothing can be compared"
    for (_, metric), some in list(pairs.items())[:1]:
        if (loss := detectable_loss(some)) > _WORTH_SEEING:
            points, wanted = (f"{100 * share:.0f}" for share in (loss, _WORTH_SEEING))
            yield (
                f"{_count(len(some), 'sample')} cannot show a loss of {metric} below {points} points (80 % power): for "
                f"{wanted} points it takes about {samples_for(_WORTH_SEEING, some)}"
            )


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
