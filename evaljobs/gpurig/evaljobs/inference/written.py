"""Tokens that were written, with their probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpurig.evaljobs.llama_vocabulary import Vocabulary


@dataclass(frozen=True)
class Likely:
    """A token and its log-probability.

    Attributes:
        text: special tokens written out.
        logprob: natural logarithm, of the model's own distribution: before grammar, penalties and temperature.
    """

    text: bytes
    logprob: float


@dataclass(frozen=True)
class Written(Likely):
    """A token of an answer.

    Attributes:
        piece: what it added to the answer.
        alternatives: the likeliest tokens in its place, the likeliest first.
    """

    piece: bytes
    alternatives: tuple[Likely, ...]


def written_token(vocabulary: Vocabulary, token: int, logits: Any, alternatives: int) -> Written:
    """A token that was chosen from logits of shape (vocabulary,)."""
    import numpy as np  # noqa: PLC0415 - comes with llama-cpp-python

    values = logits.astype(np.float64)
    values -= values.max()
    values -= np.log(np.exp(values).sum())
    count = min(alternatives, len(values))
    top = np.argpartition(-values, count - 1)[:count] if count else np.empty(0, dtype=np.intp)
    # The number decides between equals, so that the order is the same in every run.
    ordered = sorted((int(one) for one in top), key=lambda one: (-values[one], one))
    return Written(
        text=vocabulary.piece(token, special=True),
        logprob=float(values[token]),
        piece=vocabulary.piece(token),
        alternatives=tuple(Likely(vocabulary.piece(one, special=True), float(values[one])) for one in ordered),
    )
