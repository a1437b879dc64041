"""What scores come to: which choice is taken, how often it is the right one, perplexities."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from gpurig.evaljobs.records import Score, ScoredText
from gpurig.evaljobs.statistics.intervals import wilson_interval

# By what the likeliest choice is told: its log-likelihood as a whole, a token, or a byte. lm-evaluation-harness' acc is
# the first, its acc_norm the last (by characters there).
NORMALIZATIONS: Mapping[str, Callable[[ScoredText], float]] = MappingProxyType(
    {
        "sum": lambda choice: choice.logprob,
        "token": lambda choice: choice.logprob / max(choice.tokens, 1),
        "byte": lambda choice: choice.logprob / max(choice.bytes, 1),
    }
)


@dataclass(frozen=True)
class Accuracy:
    """How often the likeliest choice is the right one.

    Attributes:
        low, high: the 95 % interval (Wilson).
        n: questions that have an answer; one without scores counts as wrong.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Perplexity:
    """How surprised the model is by texts, over all of them together.

    Attributes:
        token, byte, word: exp of the mean negative log-likelihood a token, a byte (UTF-8), a word (by white space).
        bits_per_byte: the mean negative log-likelihood a byte, to the base 2.
        tokens: that were scored.
    """

    token: float
    byte: float
    word: float
    bits_per_byte: float
    tokens: int


def chosen(score: Score, normalization: str) -> int:
    """The number of the likeliest choice; the first of equals."""
    measure = NORMALIZATIONS[normalization]
    values = [measure(choice) for choice in score.scored]
    return values.index(max(values))


def accuracy(scores: Sequence[Score], normalization: str) -> Accuracy | None:
    """Over the questions that have an answer; None where there are none."""
    asked = [score for score in scores if score.answer is not None]
    if not asked:
        return None
    right = sum(bool(score.scored) and chosen(score, normalization) == score.answer for score in asked)
    low, high = wilson_interval(right, len(asked))
    return Accuracy(right / len(asked), low, high, len(asked))


def perplexity(scores: Sequence[Score]) -> Perplexity | None:
    """Over the texts; None where there are none without an error."""
    texts = [(score, score.scored[0]) for score in scores if score.kind == "text" and score.scored]
    if not texts:
        return None
    surprise = -math.fsum(text.logprob for _, text in texts)
    tokens, size = (sum(getattr(text, name) for _, text in texts) for name in ("tokens", "bytes"))
    words = sum(score.words for score, _ in texts)
    return Perplexity(
        token=_exp(surprise / tokens),
        byte=_exp(surprise / size),
        word=_exp(surprise / max(words, 1)),
        bits_per_byte=surprise / size / math.log(2),
        tokens=tokens,
    )


def _exp(value: float) -> float:
    """exp, which is infinite where it is too large for a number."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
