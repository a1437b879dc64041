"""What the fields of a suite are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)

from gpurig.evaljobs.checks import CheckSpec, parse_check
from gpurig.evaljobs.suites.library import Library, PromptText, prompt_ref
from gpurig.evaljobs.suites.template import GENERATOR_NAMES, GRADER_NAMES, TemplateFault, check_template

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
