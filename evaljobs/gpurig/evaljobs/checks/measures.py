"""Checks that measure an answer as a text: length, language."""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from gpurig.evaljobs.checks.parameters import Parameters, Share, listed
from gpurig.evaljobs.checks.subject import Answer, Finding, extract, shown, without_blocks

# The first part of a text tells its language; fewer letters than this do not.
_LANGUAGE_CHARACTERS, _LEAST_LETTERS = 20_000, 20


class Length(Parameters):
    """Parameters of `length`.

    Attributes:
        unit: what is counted; "tokens" are those the generator wrote, so `extract` must be "whole".
    """

    min: int | None = Field(default=None, ge=0)
    max: int | None = Field(default=None, ge=0)
    unit: Literal["characters", "words", "lines", "tokens"] = "characters"

    @model_validator(mode="after")
    def _demands_something(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: nothing can pass")
        if self.unit == "tokens" and self.extract != "whole":
            raise ValueError("tokens are counted of the whole answer: leave extract out")
        return self


class Language(Parameters):
    """Parameters of `language`.

    Attributes:
        code: ISO 639-1 codes that are accepted.
        confidence: how sure the classifier must be that it is another one for the answer to fail.
    """

    code: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], ...],
        BeforeValidator(listed),
        Field(min_length=1),
    ]
    confidence: Share = 0.5

    @model_validator(mode="after")
    def _known(self) -> Self:
        if unknown := set(self.code) - set(_identifier().labels):
            raise ValueError(f'language "{min(unknown)}" is not known; write ISO 639-1, for example en, de, fr')
        return self


def length(answer: Answer, parameters: Length) -> Finding:
    """Fails where the answer is shorter or longer than it may be."""
    text = extract(answer.output, parameters.extract).strip()
    count = _counted(answer, text, parameters.unit)
    if count is None:
        return Finding("the record does not say how many tokens the answer has")
    figures = {f"length_{parameters.unit}": float(count)}
    if parameters.min is not None and count < parameters.min:
        return Finding(f"expected at least {parameters.min} {parameters.unit}, found {count}", figures=figures)
    if parameters.max is not None and count > parameters.max:
        return Finding(f"expected at most {parameters.max} {parameters.unit}, found {count}", figures=figures)
    return Finding(figures=figures)


def language(answer: Answer, parameters: Language) -> Finding:
    """Fails where the answer's prose is written in another language, or is too short to tell.

    Fenced code does not count. The classifier is py3langid's: naive Bayes over byte n-grams, 97 languages.
    """
    text = without_blocks(extract(answer.output, parameters.extract))[:_LANGUAGE_CHARACTERS]
    letters = sum(one.isalpha() for one in text)
    wanted = " or ".join(parameters.code)
    if letters < _LEAST_LETTERS:
        return Finding(f"expected {wanted}, found {letters} letters: too few to tell a language")
    code, confidence = _identifier().classify(text)
    if code in parameters.code or confidence < parameters.confidence:
        return Finding()
    return Finding(f"expected {wanted}, found {code} (confidence {confidence:.2f}): {shown(text)}")


def _counted(answer: Answer, text: str, unit: str) -> int | None:
    if unit == "tokens":
        return answer.completion_tokens
    if unit == "words":
        return len(text.split())
    return len(text) if unit == "characters" else len(text.splitlines())


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415 - reads its model

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
