"""Checks on the text of an answer: contains, not-contains, regex."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gpurig.common.terminal import shorten
from gpurig.evaljobs.checks.subject import Answer, Extract, extract

# A pattern that needs longer on one answer than this is a mistake in the suite: it would stop the pipeline.
REGEX_SECONDS = 2.0


class Parameters(BaseModel):
    """What every check's parameters share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    extract: Extract = "whole"


class Text(Parameters):
    """Parameters of `contains` and `not-contains`."""

    text: str = Field(min_length=1)
    ignore_case: bool = False


class Regex(Parameters):
    """Parameters of `regex`.

    Attributes:
        pattern: in the syntax of Python's `regex` package, a superset of `re`.
        match: "search" anywhere, or "full": the whole answer, without surrounding white space.
        expect: False turns it round: the pattern must not match.
    """

    pattern: str = Field(min_length=1)
    match: Literal["search", "full"] = "search"
    ignore_case: bool = False
    multiline: bool = False
    dot_all: bool = False
    expect: bool = True

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        import regex as engine  # noqa: PLC0415 - heavy, and `--help` does not need it

        try:
            engine.compile(pattern)
        except engine.error as error:
            raise ValueError(f"no valid pattern: {error}") from error
        return pattern


def contains(answer: Answer, parameters: Text) -> str:
    """Fails where the text is not in the answer."""
    return "" if _found(answer, parameters) else f'the answer does not contain "{shorten(parameters.text, 200)}"'


def not_contains(answer: Answer, parameters: Text) -> str:
    """Fails where the text is in the answer."""
    return f'the answer contains "{shorten(parameters.text, 200)}"' if _found(answer, parameters) else ""


def _found(answer: Answer, parameters: Text) -> bool:
    output = extract(answer.output, parameters.extract)
    if parameters.ignore_case:
        return parameters.text.casefold() in output.casefold()
    return parameters.text in output


def regex(answer: Answer, parameters: Regex) -> str:
    """Fails where the pattern does not match, or needs more than `REGEX_SECONDS` to say so."""
    import regex as engine  # noqa: PLC0415 - heavy, and `--help` does not need it

    flags = engine.V0
    for wanted, flag in (
        (parameters.ignore_case, engine.IGNORECASE),
        (parameters.multiline, engine.MULTILINE),
        (parameters.dot_all, engine.DOTALL),
    ):
        flags |= flag if wanted else 0
    pattern = engine.compile(parameters.pattern, flags)
    output = extract(answer.output, parameters.extract)
    shown = shorten(parameters.pattern, 200)
    try:
        if parameters.match == "full":
            found = pattern.fullmatch(output.strip(), timeout=REGEX_SECONDS)
        else:
            found = pattern.search(output, timeout=REGEX_SECONDS)
    except TimeoutError:
        return f"/{shown}/ took longer than {REGEX_SECONDS:g} s on this answer: make the pattern simpler"
    if (found is not None) == parameters.expect:
        return ""
    return f"/{shown}/ does not match" if parameters.expect else f"/{shown}/ matches"
