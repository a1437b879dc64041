"""From records to results: pure, so that the same records always give the same results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from gpurig.common.errors import InputError
from gpurig.evaljobs.gate import apply_gate
from gpurig.evaljobs.records import Checked, CheckOutcome, Generation, ModelRef
from gpurig.evaljobs.results import JobGpuUse, JobRef, Metric, Results, SampleGrade, SampleResult, Together
from gpurig.evaljobs.statistics.intervals import wilson_interval
from gpurig.evaljobs.store import RunRecords
from gpurig.evaljobs.suites.suite import Sample, Suite


@dataclass(frozen=True)
class RunFacts:
    """What a run knows of itself beside its records.

    Attributes:
        started, finished: ISO 8601 in UTC.
        reused: samples that an earlier run had finished already.
        gpu_use: what the box's exporter tells of the pipeline's jobs.
    """

    started: str
    finished: str
    reused: int = 0
    job: JobRef = field(default_factory=JobRef)
    gpu_use: tuple[JobGpuUse, ...] = ()


def summarize(suite: Suite, samples: Sequence[Sample], records: RunRecords, facts: RunFacts) -> Results:
    """The results of `samples`, which are the suite's or a selection of them.

    Raises:
        InputError: a sample lacks a record (the message names the stage to run), two models wrote the records of one
            stage, a figure in them is not a number, or the gate asks for a metric that the run does not have.
    """
    _demand("generate", samples, records.generations)
    # A sample that could not be generated may have been passed over by the later stages.
    answered = [sample for sample in samples if records.generations[sample.id].finish != "error"]
    _demand("check", [sample for sample in answered if suite.checks_of(sample)], records.checks)
    if suite.grader:
        _demand("grade", answered, records.grades)
    generations = [records.generations[sample.id] for sample in samples]
    grades = [records.grades[sample.id] for sample in samples if sample.id in records.grades] if suite.grader else []
    done = tuple(_sample(suite, sample, records) for sample in samples)
    metrics = tuple(_metrics(suite, done))
    for metric in metrics:
        if not math.isfinite(metric.value):
            raise InputError(
                f'"{metric.name}" comes to {metric.value}: a score or a time in the records is not a usable number',
                hint="delete the record files in --out and run the stages again",
            )
    checks = [records.checks[sample.id] for sample in samples if sample.id in records.checks]
    packages: dict[str, str] = {}
    for written in (generations, checks, grades):
        for record in written:
            packages |= record.packages
    return Results(
        suite=suite.name,
        suite_sha256=suite.sha256,
        description=suite.description,
        started=facts.started,
        finished=facts.finished,
        generator=_one_model("generate", [record.model for record in generations]),
        grader=_one_model("grade", [record.model for record in grades]) if grades else None,
        pass_score=suite.grader.pass_score if suite.grader else None,
        sampling=generations[0].sampling,
        packages=dict(sorted(packages.items())),
        job=facts.job,
        reused=facts.reused,
        gpu_use=facts.gpu_use,
        together=_together(generations),
        samples=done,
        metrics=metrics,
        gate=apply_gate(suite.gate, metrics),
    )


def _together(generations: Sequence[Generation]) -> Together | None:
    parallel = max(record.parallel for record in generations)
    tried = [record.exact for record in generations if record.exact is not None]
    return Together(parallel=parallel, tried=len(tried), differing=tried.count(False)) if parallel > 1 else None


def _demand(stage: str, samples: Sequence[Sample], records: Mapping[str, object]) -> None:
    missing = [sample.id for sample in samples if sample.id not in records]
    if missing:
        which = f'sample "{missing[0]}"' + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        raise InputError(
            f"{which} did not go through the stage {stage}, as the suite is now",
            hint=f"run `gpurig-job {stage}` first, with the same suite and --out",
        )


def _one_model(stage: str, models: Sequence[ModelRef]) -> ModelRef:
    if len({model.sha256 for model in models}) > 1:
        names = " and ".join(sorted({f"{model.file} ({model.sha256[:12]})" for model in models}))
        raise InputError(
            f"the records of the stage {stage} are of several models: {names}",
            hint=f"run `gpurig-job {stage}` again: it redoes what another model wrote",
        )
    return models[0]


def _sample(suite: Suite, sample: Sample, records: RunRecords) -> SampleResult:
    generation = records.generations[sample.id]
    outcomes = _outcomes(suite, sample, generation, records.checks.get(sample.id))
    record = records.grades.get(sample.id) if suite.grader else None
    grade = None
    if record is not None:
        grade = SampleGrade(
            verdict=record.verdict, score=record.score, probabilities=record.probabilities, error=record.error
        )
    return SampleResult(
        id=sample.id,
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
        passed=generation.finish != "error"
        and all(outcome.passed for outcome in outcomes)
        and (suite.grader is None or _grade_passes(grade, suite.grader.pass_score)),
    )


def _outcomes(
    suite: Suite, sample: Sample, generation: Generation, checked: Checked | None
) -> tuple[CheckOutcome, ...]:
    """The sample's outcomes; every check of a sample without an answer has failed, whatever it would say of ""."""
    if generation.finish != "error":
        return checked.outcomes if checked else ()
    return tuple(
        CheckOutcome(check=spec.kind, label=spec.label, passed=False, message="there is no answer")
        for spec in suite.checks_of(sample)
    )


def _grade_passes(grade: SampleGrade | None, pass_score: float) -> bool:
    return grade is not None and not grade.error and grade.score >= pass_score


def _metrics(suite: Suite, samples: Sequence[SampleResult]) -> list[Metric]:
    """The run's metrics; docs/reports.md says what each counts."""
    metrics = [
        _share("pass_rate", samples, lambda sample: sample.passed),
        _share("generated_rate", samples, lambda sample: sample.finish != "error"),
    ]
    # A sample is the unit, not a check: two checks on one answer are not two independent trials.
    checked = [sample for sample in samples if sample.checks]
    if checked:
        metrics.append(_share("check_pass_rate", checked, lambda sample: all(o.passed for o in sample.checks)))
    for kind in dict.fromkeys(outcome.check for sample in samples for outcome in sample.checks):
        of_kind = [[o for o in sample.checks if o.check == kind] for sample in checked]
        groups = [group for group in of_kind if group]
        metrics.append(_share(f"check_pass_rate.{kind}", groups, lambda group: all(o.passed for o in group)))
    if suite.grader:
        pass_score = suite.grader.pass_score
        graded = [sample.grade.score for sample in samples if sample.grade and not sample.grade.error]
        metrics += [
            _share("graded_rate", samples, lambda sample: bool(sample.grade and not sample.grade.error)),
            # A sample without a verdict counts 0, so that a hole cannot raise the mean.
            Metric(name="grade_mean", value=sum(graded) / len(samples), n=len(samples)),
            _share("grade_pass_rate", samples, lambda sample: _grade_passes(sample.grade, pass_score)),
        ]
    seconds = sum(sample.seconds for sample in samples)
    tokens = sum(sample.completion_tokens for sample in samples)
    metrics.append(Metric(name="tokens_per_second", value=tokens / seconds if seconds > 0 else 0.0, n=len(samples)))
    return metrics


T = TypeVar("T")


def _share(name: str, items: Sequence[T], good: Callable[[T], bool]) -> Metric:
    count = sum(good(item) for item in items)
    low, high = wilson_interval(count, len(items))
    return Metric(name=name, value=count / len(items), n=len(items), low=low, high=high)
