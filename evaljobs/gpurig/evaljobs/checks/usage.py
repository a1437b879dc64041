"""What an answer cost: seconds, tokens, tokens per second."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from gpurig.evaljobs.checks.parameters import Parameters
from gpurig.evaljobs.checks.subject import Answer, Finding


class Latency(Parameters):
    """Parameters of `latency`: seconds of computing, at most."""

    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class Tokens(Parameters):
    """Parameters of `tokens`: of prompt and answer, at most."""

    prompt: int | None = Field(default=None, ge=1)
    completion: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _demands_something(self) -> Self:
        if self.prompt is None and self.completion is None:
            raise ValueError("give prompt, completion or both")
        return self


class Speed(Parameters):
    """Parameters of `tokens-per-second`: of the answer, at least."""

    min: float | None = Field(default=None, gt=0, allow_inf_nan=False)


_UNKNOWN = "the record does not say it"


def latency(answer: Answer, parameters: Latency) -> Finding:
    """Fails where the answer took longer; its share of the computing where several were answered at once."""
    if answer.seconds is None:
        return Finding(_UNKNOWN)
    figures = {"latency_seconds": answer.seconds}
    if parameters.seconds is not None and answer.seconds > parameters.seconds:
        return Finding(f"expected at most {parameters.seconds:g} s, found {answer.seconds:.3g} s", figures=figures)
    return Finding(figures=figures)


def tokens(answer: Answer, parameters: Tokens) -> Finding:
    """Fails where prompt or answer have more tokens."""
    counts = {"prompt": answer.prompt_tokens, "completion": answer.completion_tokens}
    figures = {f"{name}_tokens": float(count) for name, count in counts.items() if count is not None}
    for name, most in (("prompt", parameters.prompt), ("completion", parameters.completion)):
        count = counts[name]
        if most is not None and count is None:
            return Finding(_UNKNOWN, figures=figures)
        if most is not None and count is not None and count > most:
            return Finding(f"expected at most {most} {name} tokens, found {count}", figures=figures)
    return Finding(figures=figures)


def speed(answer: Answer, parameters: Speed) -> Finding:
    """Fails where fewer tokens were written in a second of computing."""
    if answer.completion_tokens is None or not answer.seconds:
        return Finding(_UNKNOWN)
    rate = answer.completion_tokens / answer.seconds
    figures = {"tokens_per_second": rate}
    if parameters.min is not None and rate < parameters.min:
        return Finding(f"expected at least {parameters.min:g} tokens/s, found {rate:.3g}", figures=figures)
    return Finding(figures=figures)
