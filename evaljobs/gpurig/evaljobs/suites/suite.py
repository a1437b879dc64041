"""Suites: what to ask which model, and when the answers are good enough. Documented in docs/suites.md."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from gpurig.common.errors import InputError
from gpurig.evaljobs.checks import CheckSpec
from gpurig.evaljobs.records import Sampling
from gpurig.evaljobs.suites.composition import Problem
from gpurig.evaljobs.suites.epochs import ONE_EPOCH, Epochs
from gpurig.evaljobs.suites.fields import (
    CheckEntry,
    GeneratorPrompt,
    GraderPrompt,
    Name,
    NonEmpty,
    Probability,
    SampleId,
    Scalar,
    Strict,
    Weight,
)

SUITE_VERSION: Literal[1] = 1

# What a gate may demand; "check_pass_rate" also exists for one kind of check, as "check_pass_rate.<kind>", and what
# checks measure as "figure.<name>".
GATE_METRICS = (
    "pass_rate",
    "generated_rate",
    "check_pass_rate",
    "graded_rate",
    "grade_mean",
    "grade_pass_rate",
    "score_mean",
    "tokens_per_second",
)


class SamplingSpec(Sampling):
    """`sampling`, as a suite writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AdapterSpec(Strict):
    """A LoRA adapter, and how strongly it is applied.

    Attributes:
        model: the adapter's name or path, found as a model's is.
        scale: 1: as it was trained.
    """

    model: NonEmpty
    scale: float = Field(default=1.0, ge=-100.0, le=100.0, allow_inf_nan=False)


def _adapter(value: object) -> object:
    """`style.gguf` is short for `{model: style.gguf}`."""
    return {"model": value} if isinstance(value, str) else value


_ADAPTER_SCHEMA = WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, {"defined": "AdapterSpec"}]})
AdapterSpecs = Annotated[
    tuple[Annotated[AdapterSpec, BeforeValidator(_adapter), _ADAPTER_SCHEMA], ...],
    Field(exclude_if=lambda adapters: not adapters),
]


class GeneratorSpec(Strict):
    """Which model answers, and how it is asked.

    Attributes:
        model: a model's name or path (`gpurig.evaljobs.models.find_model`).
        prompt: Jinja2 template of what the model is asked (`library.PromptText`); None: the sample's input as it is.
        chat: whether the prompt goes through the GGUF's chat template; None: where the model has one.
        system: the system message of the chat template; unused without one.
        context: tokens of prompt and answer together; None: what the model was trained for, at most 4096.
        stop: texts that end an answer; they are not part of it.
        sampling: how tokens are chosen.
        adapters: what the model answers with.
    """

    model: NonEmpty
    adapters: AdapterSpecs = ()
    prompt: GeneratorPrompt | None = None
    chat: bool | None = None
    system: str = ""
    context: int | None = Field(default=None, ge=16, le=2**20)
    stop: tuple[NonEmpty, ...] = ()
    sampling: SamplingSpec = SamplingSpec()


JudgeMetric = Literal[
    "kappa", "true_positive_rate", "true_negative_rate", "calibration_error", "corrupted_rejected_rate"
]


class CalibrationSpec(Strict):
    """What shows how far the grader agrees with people, and how far it must.

    Attributes:
        file: JSON Lines with people's verdicts, relative to the suite (docs/graders.md).
        corruptions: so many good answers of it are spoilt on purpose, and must be found bad.
        seed: of the corruptions.
        floors: the least that the grader must reach; of `calibration_error` the most that it may have.
    """

    file: NonEmpty
    corruptions: int = Field(default=0, ge=0, le=10_000)
    seed: int = Field(default=1, ge=0, lt=2**32)
    floors: dict[JudgeMetric, Annotated[float, Field(ge=-1.0, le=1.0)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _measurable(self) -> Self:
        if "corrupted_rejected_rate" in self.floors and not self.corruptions:
            raise ValueError("floors: corrupted_rejected_rate needs corruptions: say how many, for example 40")
        return self


def _calibration(value: object) -> object:
    """`calibration: file.jsonl` is short for `calibration: {file: file.jsonl}`."""
    return {"file": value} if isinstance(value, str) else value


class GraderSpec(Strict):
    """Which model judges, and what its verdicts are worth.

    Attributes:
        prompt: Jinja2 template over `input`, `output`, `reference`, `tags`, `vars`, `id`.
        verdicts: every verdict's text and its value, 0 … 1.
        pass_score: the expected value from which a sample passes.
        calibration: None: nobody knows how far it agrees with people.

    The others are as in GeneratorSpec.
    """

    model: NonEmpty
    adapters: AdapterSpecs = ()
    prompt: GraderPrompt
    chat: bool | None = None
    system: str = ""
    context: int | None = Field(default=None, ge=16, le=2**20)
    verdicts: dict[NonEmpty, Probability]
    pass_score: Probability = 0.5
    calibration: Annotated[
        CalibrationSpec | None,
        BeforeValidator(_calibration),
        WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, {"defined": "CalibrationSpec"}]}),
    ] = Field(default=None, exclude_if=lambda value: value is None)

    @model_validator(mode="after")
    def _verdicts_differ(self) -> Self:
        if len(self.verdicts) < 2:
            raise ValueError("verdicts: at least two are needed, for example {good: 1.0, bad: 0.0}")
        words = sorted(self.verdicts)
        for one, other in itertools.pairwise(words):
            if other.startswith(one):
                raise ValueError(
                    f'verdicts: "{other}" begins with "{one}", so their probabilities cannot be told apart: '
                    "use words or letters"
                )
        return self


class Sample(Strict):
    """One question.

    Attributes:
        id: unique in its suite; results are joined by it.
        input: what is asked.
        reference: a good answer, for the grader; never shown to the generator.
        tags: to select and to group by.
        vars: further values for the templates, under `vars`.
        checks: in addition to the suite's.
        threshold: the score from which it passes; the suite's where None.
        pass_score: the grade from which it passes; the grader's where None.
    """

    id: SampleId
    input: str
    reference: str = ""
    tags: tuple[Name, ...] = ()
    vars: dict[Name, Scalar] = Field(default_factory=dict)
    checks: tuple[CheckEntry, ...] = ()
    threshold: Probability | None = Field(default=None, exclude_if=lambda value: value is None)
    pass_score: Probability | None = Field(default=None, exclude_if=lambda value: value is None)


# Of these metrics only the run has a value.
_WHOLE_RUN = frozenset({"tokens_per_second"})


class GateRuleSpec(Strict):
    """A demand on one metric of the run: at least `min`, at most `max`, or one on its change since the baseline.

    Attributes:
        generator: whose metric; None: every generator's.
        no_regression: it is not significantly worse than the baseline's.
        margin: it is shown to be worse by less than this (non-inferiority).
        alpha: how often a run that is no worse may fail `no_regression`, and one that is worse by the margin may pass.
        missing_baseline: what the rule comes to where there is no baseline: a project's first run.
    """

    metric: NonEmpty
    generator: str | None = Field(default=None, exclude_if=lambda name: name is None)
    min: float | None = None
    max: float | None = None
    no_regression: bool = Field(default=False, exclude_if=lambda value: not value)
    margin: float | None = Field(default=None, gt=0.0, le=1.0, exclude_if=lambda value: value is None)
    alpha: float = Field(default=0.05, gt=0.0, lt=0.5, exclude_if=lambda value: value == 0.05)
    missing_baseline: Literal["pass", "fail"] = Field(default="pass", exclude_if=lambda value: value == "pass")

    @property
    def relative(self) -> bool:
        """Whether it is held against a baseline."""
        return self.no_regression or self.margin is not None

    @model_validator(mode="after")
    def _demands_something(self) -> Self:
        if self.relative and self.metric in _WHOLE_RUN:
            raise ValueError(f"{self.metric} has no value of each sample, so it cannot be held against a baseline")
        if self.relative:
            if self.min is not None or self.max is not None or (self.no_regression and self.margin is not None):
                raise ValueError("give min and max, no_regression, or margin: each is a rule of its own")
            return self
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both, or no_regression or margin")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: nothing can pass")
        return self


class SampleDefaults(Strict):
    """What a sample has where it does not say otherwise; the tags are added to its own."""

    reference: str = ""
    tags: tuple[Name, ...] = ()


class DefaultsSpec(Strict):
    """What parts of the suite have where they do not say otherwise.

    Attributes:
        generator: keys of every generator; they are held against the format where they come to stand.
    """

    generator: dict[str, Any] = Field(default_factory=dict)
    sample: SampleDefaults = SampleDefaults()


_NO_DEFAULTS = DefaultsSpec()


class SuiteFile(Strict):
    """suite.yaml, the files that it names written in.

    Attributes:
        generator: the only one; None where `generators` names several.
        vars: values for the templates of all samples; a sample's own win.
        threshold: the score from which a sample passes; None: every check must pass, and its grade be at least
            `pass_score`.
        grade_weight: how much the grade counts in a sample's score, beside the checks' weights.
        prompts: the library's that the suite writes or names itself.
    """

    version: Literal[1]
    name: Name
    description: str = ""
    generator: GeneratorSpec | None = None
    # What was not in the first suites is left out of their hash: it stays what it was.
    generators: dict[Name, GeneratorSpec] = Field(default_factory=dict, exclude_if=lambda names: not names)
    epochs: Epochs = Field(default=ONE_EPOCH, exclude_if=lambda epochs: epochs == ONE_EPOCH)
    vars: dict[Name, Scalar] = Field(default_factory=dict, exclude_if=lambda values: not values)
    defaults: DefaultsSpec = Field(default=_NO_DEFAULTS, exclude_if=lambda defaults: defaults == _NO_DEFAULTS)
    threshold: Probability | None = Field(default=None, exclude_if=lambda value: value is None)
    grade_weight: Weight = Field(default=1.0, exclude_if=lambda value: value == 1.0)
    prompts: dict[Name, GraderPrompt] = Field(default_factory=dict, exclude_if=lambda prompts: not prompts)
    grader: GraderSpec | None = None
    checks: tuple[CheckEntry, ...] = ()
    samples: tuple[Sample, ...] = Field(min_length=1)
    gate: tuple[GateRuleSpec, ...] = ()

    @property
    def named_generators(self) -> dict[str, GeneratorSpec]:
        """Every generator by its name; the only one of `generator` has the name ""."""
        return {"": self.generator} if self.generator is not None else dict(self.generators)


class Suite(SuiteFile):
    """A suite that was read.

    Attributes:
        samples: with the suite's variables and defaults in them.
        path: its file.
        warnings: what works and is probably not meant.
        sha256: over everything it says, the samples file included; formatting and comments do not count.
    """

    path: Path
    sha256: str
    warnings: tuple[Problem, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the suite lies; its paths are relative to it."""
        return self.path.parent

    def checks_of(self, sample: Sample) -> tuple[CheckSpec, ...]:
        """The suite's checks, then the sample's own."""
        return (*self.checks, *sample.checks)


def load_suite(path: Path) -> Suite:
    """Read a suite: a folder with suite.yaml, or a file.

    Raises:
        InputError: missing, or wrong; every problem names file, line and field, and what would be right.
        PrerequisiteError: no permission.
    """
    from gpurig.evaljobs.suites.problems import validate_suite  # noqa: PLC0415 - it needs the models of this module

    file = path / "suite.yaml" if path.is_dir() else path
    if not file.exists():
        raise InputError(
            f"no suite at {file}", hint="give a folder that holds suite.yaml, or a suite's file (docs/suites.md)"
        )
    content, warnings = validate_suite(file)
    fields = {name: getattr(content, name) for name in SuiteFile.model_fields}
    fields["samples"] = tuple(_complete(sample, content) for sample in content.samples)
    return Suite.model_construct(
        **fields,
        path=file,
        sha256=digest(content.model_dump(mode="json")),
        warnings=warnings,
    )


def _complete(sample: Sample, suite: SuiteFile) -> Sample:
    """A sample with the suite's variables and defaults, its own before them."""
    defaults = suite.defaults.sample
    if not suite.vars and defaults == SampleDefaults():
        return sample
    return sample.model_copy(
        update={
            "vars": {**suite.vars, **sample.vars},
            "tags": tuple(dict.fromkeys((*defaults.tags, *sample.tags))),
            "reference": sample.reference or defaults.reference,
        }
    )


def digest(data: Mapping[str, Any]) -> str:
    """SHA-256 of JSON data, independent of the order of keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
