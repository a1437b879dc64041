"""Suites: what to ask which model, and when the answers are good enough. Documented in docs/suites.md."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from gpurig.common.errors import InputError
from gpurig.evaljobs.checks import CheckSpec, parse_check
from gpurig.evaljobs.records import Sampling
from gpurig.evaljobs.statistics.reducers import Reducer, parse_reducer
from gpurig.evaljobs.suites.library import Library, PromptText, prompt_ref
from gpurig.evaljobs.suites.template import GENERATOR_NAMES, GRADER_NAMES, TemplateFault, check_template

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

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
SampleId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:+-]{0,199}$")]
NonEmpty = Annotated[str, StringConstraints(min_length=1)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0, le=1e6)]
# What is "defined" in a JSON Schema is so in schema.py.
CheckEntry = Annotated[
    CheckSpec,
    PlainValidator(parse_check),
    PlainSerializer(lambda spec: spec.as_data),
    WithJsonSchema({"defined": "Check"}),
]


def _scalar(value: object) -> str | float | bool:
    if isinstance(value, str | int | float):
        return value
    raise ValueError("must be text, a number, true or false")


Scalar = Annotated[
    str | int | float | bool, PlainValidator(_scalar), WithJsonSchema({"type": ["string", "number", "boolean"]})
]


def _template(names: tuple[str, ...]) -> PlainValidator:
    """Reads a prompt, a text or one of the library, which may use `names` and what it declares itself.

    The context's "library" (`Library`) is where prompts are looked for.
    """

    def read(value: object, info: ValidationInfo) -> str:
        if isinstance(value, str):
            prompt = PromptText(value)
        elif isinstance(value, dict) and isinstance(info.context, Library):
            prompt = info.context.prompt(value)
        else:
            raise TemplateFault("must be the template's text, {file: …} or {name: …}")
        check_template(prompt, (*names, *prompt.variables))
        return prompt

    return PlainValidator(read)


def _written_prompt(prompt: str) -> object:
    """The text; one of the library also with its name and version."""
    ref = prompt_ref(prompt)
    return str(prompt) if ref is None else {"text": str(prompt), "name": ref.name, "version": ref.version}


_PROMPT_SCHEMA = WithJsonSchema({"defined": "Prompt"})
GeneratorPrompt = Annotated[str, _template(GENERATOR_NAMES), PlainSerializer(_written_prompt), _PROMPT_SCHEMA]
GraderPrompt = Annotated[str, _template(GRADER_NAMES), PlainSerializer(_written_prompt), _PROMPT_SCHEMA]


class Strict(BaseModel):
    """A part of a suite: no unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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


AdapterSpecs = Annotated[
    tuple[Annotated[AdapterSpec, BeforeValidator(_adapter)], ...], Field(exclude_if=lambda adapters: not adapters)
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


class GraderSpec(Strict):
    """Which model judges, and what its verdicts are worth.

    Attributes:
        prompt: Jinja2 template over `input`, `output`, `reference`, `tags`, `vars`, `id`.
        verdicts: every verdict's text and its value, 0 … 1.
        pass_score: the expected value from which a sample passes.

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


class GateRuleSpec(Strict):
    """A demand on one metric of the run: at least `min`, at most `max`.

    Attributes:
        generator: whose metric; None: every generator's.
    """

    metric: NonEmpty
    generator: str | None = Field(default=None, exclude_if=lambda name: name is None)
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _demands_something(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: nothing can pass")
        return self


def _reducer(text: str) -> str:
    parse_reducer(text)
    return text


class EpochsSpec(Strict):
    """How often every sample is asked, and what the answers come to.

    Attributes:
        reduce: "mean", "pass@K", "pass^K" or "at-least-K" (`statistics.reducers`).
    """

    n: int = Field(default=1, ge=1, le=1000)
    reduce: Annotated[str, AfterValidator(_reducer)] = "mean"

    @property
    def reducer(self) -> Reducer:
        """What makes one value of a sample's epochs."""
        return parse_reducer(self.reduce)

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.reducer.k > self.n:
            raise ValueError(f'reduce: "{self.reduce}" needs at least {self.reducer.k} epochs, and n is {self.n}')
        return self


def _epochs(value: object) -> object:
    """`epochs: 5` is short for `epochs: {n: 5}`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"n": value}
    if isinstance(value, dict):
        return value
    raise ValueError("must be a whole number, or a mapping such as {n: 5, reduce: mean}")


_ONE_EPOCH = EpochsSpec()
_EPOCHS_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 1000}, {"defined": "EpochsSpec"}]}


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
    epochs: Annotated[EpochsSpec, BeforeValidator(_epochs), WithJsonSchema(_EPOCHS_SCHEMA)] = Field(
        default=_ONE_EPOCH, exclude_if=lambda epochs: epochs == _ONE_EPOCH
    )
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
        warnings: what works and is probably not meant, a line each.
        sha256: over everything it says, the samples file included; formatting and comments do not count.
    """

    path: Path
    sha256: str
    warnings: tuple[str, ...] = ()

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
        warnings=tuple(str(warning) for warning in warnings),
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
