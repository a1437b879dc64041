"""results.json: the whole run in one file, which every report and the appliance read.

The format is documented in docs/formats.md. Readers ignore fields that they do not know.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gpurig.common.errors import InputError
from gpurig.common.files import read_bytes
from gpurig.evaljobs.findings import Comparison, JudgeFitness
from gpurig.evaljobs.records import CheckOutcome, ModelRef, PromptRef, Sampling

SCHEMA: Literal["gpurig.results/1"] = "gpurig.results/1"


class Part(BaseModel):
    """A part of results.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class SampleGrade(Part):
    """What the grader said of a sample."""

    verdict: str
    score: float
    probabilities: dict[str, float] = Field(default_factory=dict)
    error: str = ""


class SampleResult(Part):
    """One answer to one sample.

    Attributes:
        id: unique in a run (`records.trial_id`); the sample's id where there is one generator and one epoch.
        sample, generator, epoch: whose answer to what; sample is "" in files from before this was noted: the id is it.
        score: how good the answer is on the whole, 0 ... 1: the mean by weight of its checks' scores and its grade;
            None where there is neither.
        threshold: the score from which it passes; None where every check and the grade must pass.
        pass_score: the grade from which it passes; None without a grader.
        figures: what was measured of it, by name.
        passed: it was generated without an error, and its score is at least `threshold`, or, where there is none, every
            check passed and its grade is at least `pass_score` (where there is a grader).
        input: what the suite asked, before the prompt template.
        finish: "stop", "length", "error".
    """

    id: str
    sample: str = ""
    generator: str = ""
    epoch: int = 1
    score: float | None = None
    threshold: float | None = None
    pass_score: float | None = None
    figures: dict[str, float] = Field(default_factory=dict)
    tags: tuple[str, ...] = ()
    input: str
    output: str
    reference: str = ""
    finish: Literal["stop", "length", "error"]
    error: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    checks: tuple[CheckOutcome, ...] = ()
    grade: SampleGrade | None = None
    passed: bool

    @property
    def of(self) -> str:
        """The id of the sample that it answers."""
        return self.sample or self.id


class Metric(Part):
    """One figure of the run.

    Attributes:
        name: "pass_rate", "generated_rate", "check_pass_rate.<kind>", "graded_rate", "grade_mean",
            "grade_pass_rate", "tokens_per_second"; docs/reports.md says how each is computed.
        generator: whose figure; "" where the suite has one generator without a name.
        value: its value.
        n: over how many samples.
        low, high: its 95 % interval, where there is one.
    """

    name: str
    generator: str = ""
    value: float
    n: int
    low: float | None = None
    high: float | None = None


class GateRule(Part):
    """One demand of the suite and how it came out.

    Attributes:
        kind: "threshold": the value is at least `minimum` and at most `maximum`; "no-regression": it is not
            significantly worse than the baseline's, at the level `alpha`; "non-inferiority": it is shown to be worse by
            less than `margin`.
        p: the probability that it is judged by, after Holm's correction; None for thresholds.
        reason: why it failed, in words; "" where it passed.
    """

    metric: str
    generator: str = ""
    kind: Literal["threshold", "no-regression", "non-inferiority"] = "threshold"
    minimum: float | None = None
    maximum: float | None = None
    alpha: float | None = None
    margin: float | None = None
    p: float | None = None
    value: float
    passed: bool
    reason: str = ""


class Gate(Part):
    """The verdict over the run; `reason` says what kind of demand it failed first, the judge before all others."""

    passed: bool
    reason: Literal["", "threshold", "regression", "judge"] = ""
    rules: tuple[GateRule, ...] = ()


class JobRef(Part):
    """The CI job that wrote the results, from GitLab's predefined variables; empty fields outside of CI."""

    id: str = ""
    url: str = ""
    pipeline_id: str = ""
    project_path: str = ""
    commit_sha: str = ""


Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class GpuCardUse(Part):
    """What a job used of one GPU; None where the card or its driver does not tell.

    Attributes:
        name: the product's.
        memory_peak_bytes: the most that a reading saw.
        gpu_seconds: time for which the job kept it busy.
        energy_joules: the job's share of its energy.
    """

    name: Annotated[str, Field(max_length=200)] = ""
    memory_total_bytes: Amount | None = None
    memory_peak_bytes: Amount | None = None
    gpu_seconds: Amount | None = None
    energy_joules: Amount | None = None


class JobGpuUse(Part):
    """What a job of the pipeline used of the box's GPUs, as the box's exporter tells it.

    Attributes:
        ended: ISO 8601 in UTC; None where it ran when the report was made.
        oom: which memory it died for want of: gpu, host.
        text: all of this in one line.
    """

    job_id: Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]
    pipeline_id: Annotated[str, Field(pattern=r"^[0-9]{0,20}$")] = ""
    ended: Annotated[str, Field(max_length=40)] | None = None
    exit_code: int | None = None
    gpus: Annotated[tuple[GpuCardUse, ...], Field(max_length=64)] = ()
    oom: Annotated[tuple[Annotated[str, Field(max_length=20)], ...], Field(max_length=8)] = ()
    text: Annotated[str, Field(max_length=2000)] = ""


class Together(Part):
    """How far answers that were computed together may be trusted to be those of each sample alone.

    Attributes:
        parallel: samples that were answered at the same time, at most.
        tried: samples that were answered once more alone.
        differing: those of them that came to another answer.
    """

    parallel: int
    tried: int
    differing: int


class GeneratorRef(Part):
    """A generator of the run.

    Attributes:
        name: as the suite has it; "" where there is one without a name.
        sampling: of its first epoch; the others have the seeds after it.
        prompt: which one of the suite's library; None where the suite itself writes it.
    """

    name: str = ""
    model: ModelRef
    prompt: PromptRef | None = None
    sampling: Sampling


class Results(Part):
    """results.json.

    Attributes:
        started, finished: ISO 8601 in UTC.
        generator, sampling: the first generator's; `generators` has them all, and is empty in files from before there
            could be several.
        pass_score: the least score 0 … 1 with which a grade passes; None without a grader.
        reused: answers that an earlier run had finished already.
        epochs: how often every sample was asked of every generator.
        reduce: what its answers come to: "mean", "pass@K", "pass^K", "at-least-K".
        shard: which part of a larger run this is, "2/4"; empty for a whole one.
        gpu_use: of the pipeline's jobs on this box, by job id; empty where no exporter tells of it.
        together: how the samples were generated; None where each was alone, or where that was not noted.
        comparison: with the baseline, where there is one.
        judges: how fit the graders are, where they were calibrated.
    """

    schema_: Literal["gpurig.results/1"] = Field(default=SCHEMA, alias="schema")
    suite: str
    suite_sha256: str
    description: str = ""
    started: str
    finished: str
    generator: ModelRef
    generators: tuple[GeneratorRef, ...] = ()
    epochs: int = 1
    reduce: str = "mean"
    grader: ModelRef | None = None
    pass_score: float | None = None
    sampling: Sampling
    packages: dict[str, str] = Field(default_factory=dict)
    job: JobRef = JobRef()
    reused: int = 0
    shard: str = ""
    together: Together | None = None
    samples: tuple[SampleResult, ...]
    metrics: tuple[Metric, ...]
    gate: Gate
    gpu_use: tuple[JobGpuUse, ...] = ()
    comparison: Comparison | None = None
    judges: tuple[JudgeFitness, ...] = ()

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    def metric(self, name: str, generator: str = "") -> Metric | None:
        """The metric of that name, or None."""
        found = (metric for metric in self.metrics if (metric.name, metric.generator) == (name, generator))
        return next(found, None)

    def to_json(self) -> str:
        """The file's text."""
        return self.model_dump_json(by_alias=True, indent=1) + "\n"


def grade_passes(grade: SampleGrade | None, pass_score: float | None) -> bool:
    """Whether there is a verdict, and its score is high enough."""
    return grade is not None and not grade.error and pass_score is not None and grade.score >= pass_score


def read_results(path: Path) -> Results:
    """Read results.json.

    Raises:
        InputError: missing, or not of this schema; the message names the file and the field.
    """
    try:
        return Results.model_validate_json(read_bytes(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{path}: {where}: {first['msg']}",
            hint=f"it must follow schema {SCHEMA}; run the report again",
        ) from error
