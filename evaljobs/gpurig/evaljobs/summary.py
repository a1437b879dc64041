"""From records to results: pure, so that the same records always give the same results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gpurig.common.errors import InputError
from gpurig.evaljobs.comparing.compare import compare, paired
from gpurig.evaljobs.comparing.demands import with_relative
from gpurig.evaljobs.findings import BaselineRef, JudgeFitness
from gpurig.evaljobs.gate import apply_gate, judged
from gpurig.evaljobs.grading.calibration import calibration_items, fitness
from gpurig.evaljobs.records import Checked, CheckOutcome, Generation, ModelRef
from gpurig.evaljobs.results import (
    GeneratorRef,
    JobGpuUse,
    JobRef,
    Metric,
    Results,
    SampleGrade,
    SampleResult,
    Together,
    grade_passes,
)
from gpurig.evaljobs.statistics.intervals import wilson_interval
from gpurig.evaljobs.statistics.reducers import Reducer
from gpurig.evaljobs.store import RunRecords
from gpurig.evaljobs.suites.suite import Suite
from gpurig.evaljobs.suites.trials import Trial


@dataclass(frozen=True)
class RunFacts:
    """What a run knows of itself beside its records.

    Attributes:
        started, finished: ISO 8601 in UTC.
        reused: trials that an earlier run had finished already.
        shard: which part of a larger run it is, "2/4"; empty for a whole one.
        gpu_use: what the box's exporter tells of the pipeline's jobs.
    """

    started: str
    finished: str
    reused: int = 0
    job: JobRef = field(default_factory=JobRef)
    gpu_use: tuple[JobGpuUse, ...] = ()
    shard: str = ""


def summarize(
    suite: Suite,
    trials: Sequence[Trial],
    records: RunRecords,
    facts: RunFacts,
    baseline: tuple[Results, BaselineRef] | None = None,
) -> Results:
    """The results of `trials`, which are the suite's or a selection of them; at least one.

    Args:
        suite: what the records answer.
        trials: whose.
        records: of the stages.
        facts: what the run knows beside.
        baseline: what it is compared with.

    Raises:
        InputError: a trial lacks a record (the message names the stage to run), two models wrote the records of one
            stage, a figure in them is not a number, or the gate asks for a metric that the run does not have.
    """
    _demand("generate", trials, records.generations)
    # A trial that could not be generated may have been passed over by the later stages.
    answered = [trial for trial in trials if records.generations[trial.id].finish != "error"]
    _demand("check", [trial for trial in answered if suite.checks_of(trial.sample)], records.checks)
    if suite.grader:
        _demand("grade", answered, records.grades)
    judges = _judges(suite, records)
    generations = [records.generations[trial.id] for trial in trials]
    grades = [records.grades[trial.id] for trial in trials if trial.id in records.grades] if suite.grader else []
    done = tuple(_result(suite, trial, records) for trial in trials)
    generators = _generators(generations)
    names = [one.name for one in generators]
    metrics = tuple(
        metric
        for one in generators
        for metric in _metrics(suite, one.name, [result for result in done if result.generator == one.name])
    )
    for metric in metrics:
        if not math.isfinite(metric.value):
            raise InputError(
                f'"{metric.name}" comes to {metric.value}: a score or a time in the records is not a usable number',
                hint="delete the record files in --out and run the stages again",
            )
    checks = [records.checks[trial.id] for trial in trials if trial.id in records.checks]
    packages: dict[str, str] = {}
    for written in (generations, checks, grades):
        for record in written:
            packages |= record.packages
    # A run of some of the generators is judged by what the suite demands of these.
    rules = [rule for rule in suite.gate if rule.generator in {None, *names}]
    results = Results(
        suite=suite.name,
        suite_sha256=suite.sha256,
        description=suite.description,
        started=facts.started,
        finished=facts.finished,
        generator=generators[0].model,
        generators=generators,
        epochs=suite.epochs.n,
        reduce=suite.epochs.reduce,
        grader=_one_model("grade", [record.model for record in grades]) if grades else None,
        pass_score=suite.grader.pass_score if suite.grader else None,
        sampling=generations[0].sampling,
        packages=dict(sorted(packages.items())),
        job=facts.job,
        reused=facts.reused,
        gpu_use=facts.gpu_use,
        shard=facts.shard,
        together=_together(generations),
        samples=done,
        metrics=metrics,
        gate=apply_gate(rules, metrics),
        judges=judges,
    )
    then = None if baseline is None else baseline[0]
    gate = with_relative(results.gate, rules, metrics, None if then is None else paired(results, then))
    comparison = None if baseline is None else compare(results, *baseline)
    return results.model_copy(update={"gate": judged(gate, judges), "comparison": comparison})


def _judges(suite: Suite, records: RunRecords) -> tuple[JudgeFitness, ...]:
    """How fit the grader is, where the suite has a calibration set."""
    items = calibration_items(suite)
    missing = sum(item.id not in records.calibration for item in items)
    if missing:
        raise InputError(
            f"the grader has not judged {missing} of the {len(items)} answers that it is calibrated on",
            hint="run `gpurig-job grade` or `gpurig-job calibrate` first, with the same suite and --out",
        )
    return (fitness(suite.grader, items, records.calibration),) if suite.grader and items else ()


def _together(generations: Sequence[Generation]) -> Together | None:
    parallel = max(record.parallel for record in generations)
    tried = [record.exact for record in generations if record.exact is not None]
    return Together(parallel=parallel, tried=len(tried), differing=tried.count(False)) if parallel > 1 else None


def _generators(generations: Sequence[Generation]) -> tuple[GeneratorRef, ...]:
    """Every generator, in the order of its first trial; the epochs of one differ in their seed alone."""
    by_name: dict[str, list[Generation]] = {}
    for record in generations:
        by_name.setdefault(record.generator, []).append(record)
    return tuple(
        GeneratorRef(
            name=name,
            model=_one_model("generate", [record.model for record in records]),
            prompt=records[0].template,
            sampling=records[0].sampling,
        )
        for name, records in by_name.items()
    )


def _demand(stage: str, trials: Sequence[Trial], records: Mapping[str, object]) -> None:
    missing = [trial.id for trial in trials if trial.id not in records]
    if missing:
        which = f'sample "{missing[0]}"' + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        raise InputError(
            f"{which} did not go through the stage {stage}, as the suite is now",
            hint=f"run `gpurig-job {stage}` first, with the same suite and --out",
        )


def _one_model(stage: str, models: Sequence[ModelRef]) -> ModelRef:
    if len({model.identity for model in models}) > 1:
        names = " and ".join(sorted({f"{model.title} ({model.sha256[:12]})" for model in models}))
        raise InputError(
            f"the records of the stage {stage} are of several models: {names}",
            hint=f"run `gpurig-job {stage}` again: it redoes what another model wrote",
        )
    return models[0]


def _result(suite: Suite, trial: Trial, records: RunRecords) -> SampleResult:
    generation, sample = records.generations[trial.id], trial.sample
    outcomes = _outcomes(suite, trial, generation, records.checks.get(trial.id))
    record = records.grades.get(trial.id) if suite.grader else None
    grade = None
    if record is not None:
        grade = SampleGrade(
            verdict=record.verdict, score=record.score, probabilities=record.probabilities, error=record.error
        )
    pass_score = None
    if suite.grader:
        pass_score = suite.grader.pass_score if sample.pass_score is None else sample.pass_score
    score = _score(suite, generation, outcomes, grade)
    threshold = suite.threshold if sample.threshold is None else sample.threshold
    return SampleResult(
        id=trial.id,
        sample=sample.id,
        generator=trial.generator,
        epoch=trial.epoch,
        score=score,
        threshold=threshold,
        pass_score=pass_score,
        figures=_figures(outcomes),
        tags=sample.tags,
        input=sample.input,
        output=generation.output,
        reference=sample.reference,
        finish=generation.finish,
        error=generation.error,
        prompt_tokens=generation.prompt_tokens,
        completion_tokens=generation.completion_tokens,
        seconds=generation.seconds,
        checks=outcomes,
        grade=grade,
        passed=generation.finish != "error" and _passes(outcomes, grade, pass_score, score, threshold),
    )


def _passes(
    outcomes: Sequence[CheckOutcome],
    grade: SampleGrade | None,
    pass_score: float | None,
    score: float | None,
    threshold: float | None,
) -> bool:
    if threshold is not None and score is not None:
        # The score is a quotient of sums: what is equal on paper must not fail by the last bit.
        return score >= threshold or math.isclose(score, threshold, rel_tol=0, abs_tol=1e-9)
    return all(outcome.passed for outcome in outcomes) and (pass_score is None or grade_passes(grade, pass_score))


def _score(
    suite: Suite, generation: Generation, outcomes: Sequence[CheckOutcome], grade: SampleGrade | None
) -> float | None:
    """The mean by weight of the checks' scores and the grade; a grade that is missing counts 0."""
    parts = [
        (outcome.weight, float(outcome.passed) if outcome.score is None else outcome.score)
        for outcome in outcomes
        if not outcome.skipped
    ]
    if suite.grader:
        parts.append((suite.grade_weight, grade.score if grade and not grade.error else 0.0))
    weight = math.fsum(weight for weight, _ in parts)
    if weight == 0:
        return None
    return 0.0 if generation.finish == "error" else math.fsum(weight * value for weight, value in parts) / weight


def _figures(outcomes: Sequence[CheckOutcome]) -> dict[str, float]:
    """What the checks measured; of a figure that several of them measured, the mean."""
    found: dict[str, list[float]] = {}
    for outcome in outcomes:
        for name, value in outcome.figures.items():
            found.setdefault(name, []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in found.items()}


def _outcomes(suite: Suite, trial: Trial, generation: Generation, checked: Checked | None) -> tuple[CheckOutcome, ...]:
    """The trial's outcomes; every check of one without an answer has failed, whatever it would say of ""."""
    if generation.finish != "error":
        return checked.outcomes if checked else ()
    return tuple(
        CheckOutcome(
            check=spec.kind,
            label=spec.label,
            passed=False,
            message="there is no answer",
            weight=spec.parameters.weight,
        )
        for spec in suite.checks_of(trial.sample)
    )


def _metrics(suite: Suite, generator: str, trials: Sequence[SampleResult]) -> list[Metric]:
    """A generator's metrics; docs/reports.md says what each counts.

    A sample is the unit: its epochs become one value first, and two checks on one answer are not two trials.
    """
    samples = _Samples(generator, trials)
    mean, reducer = Reducer(), suite.epochs.reducer
    metrics = [
        samples.share("pass_rate", reducer, lambda trial: trial.passed),
        samples.share("generated_rate", mean, lambda trial: trial.finish != "error"),
    ]
    kinds = tuple(dict.fromkeys(outcome.check for trial in trials for outcome in trial.checks if not outcome.skipped))
    if kinds:
        metrics.append(_check_rate(samples, "check_pass_rate", reducer, kinds))
    metrics += [_check_rate(samples, f"check_pass_rate.{kind}", reducer, (kind,)) for kind in kinds]
    if suite.grader:
        metrics += [
            samples.share("graded_rate", mean, lambda trial: bool(trial.grade and not trial.grade.error)),
            # An answer without a verdict counts 0, so that a hole cannot raise the mean.
            samples.mean("grade_mean", lambda trial: trial.grade.score if trial.grade and not trial.grade.error else 0),
            samples.share("grade_pass_rate", reducer, lambda trial: grade_passes(trial.grade, trial.pass_score)),
        ]
    if any(trial.score is not None for trial in trials):
        metrics.append(samples.mean("score_mean", lambda trial: trial.score))
    figures = dict.fromkeys(name for trial in trials for name in trial.figures)
    metrics += [_figure(samples, name) for name in figures]
    seconds = sum(trial.seconds for trial in trials)
    tokens = sum(trial.completion_tokens for trial in trials)
    speed = tokens / seconds if seconds > 0 else 0.0
    return [*metrics, Metric(name="tokens_per_second", generator=generator, value=speed, n=len(samples))]


def _figure(samples: _Samples, name: str) -> Metric:
    """The mean of what the checks measured, over the samples where they did."""
    return samples.mean(f"figure.{name}", lambda trial: trial.figures.get(name))


def _check_rate(samples: _Samples, name: str, reducer: Reducer, kinds: Sequence[str]) -> Metric:
    """Of the samples that have checks of these kinds: those that passed all of them."""

    def of_kinds(trial: SampleResult) -> Iterable[CheckOutcome]:
        return (outcome for outcome in trial.checks if outcome.check in kinds and not outcome.skipped)

    return samples.share(
        name,
        reducer,
        lambda trial: all(outcome.passed for outcome in of_kinds(trial)),
        having=lambda trial: any(True for _ in of_kinds(trial)),
    )


class _Samples:
    """The trials of one generator by sample, and what they come to."""

    def __init__(self, generator: str, trials: Sequence[SampleResult]) -> None:
        self._generator = generator
        self._epochs: dict[str, list[SampleResult]] = {}
        for trial in trials:
            self._epochs.setdefault(trial.of, []).append(trial)

    def __len__(self) -> int:
        return len(self._epochs)

    def share(
        self,
        name: str,
        reducer: Reducer,
        good: Callable[[SampleResult], bool],
        *,
        having: Callable[[SampleResult], bool] = lambda _: True,
    ) -> Metric:
        """The mean over the samples that `having` takes of what `reducer` makes of their good and bad trials.

        Where every sample's value is 0 or 1 its interval is Wilson's.
        """
        groups = [epochs for epochs in self._epochs.values() if having(epochs[0])]
        values = [reducer.reduce([good(trial) for trial in epochs]) for epochs in groups]
        count = math.fsum(values)
        low, high = None, None
        if all(value in {0.0, 1.0} for value in values):
            low, high = wilson_interval(round(count), len(values))
        return Metric(
            name=name, generator=self._generator, value=count / len(values), n=len(values), low=low, high=high
        )

    def mean(self, name: str, value: Callable[[SampleResult], float | None]) -> Metric:
        """The mean over the samples of the mean over their trials, where there is a value."""
        values = []
        for epochs in self._epochs.values():
            found = [one for one in map(value, epochs) if one is not None]
            if found:
                values.append(math.fsum(found) / len(found))
        return Metric(name=name, generator=self._generator, value=math.fsum(values) / len(values), n=len(values))
