"""Tasks as training examples."""

from __future__ import annotations

import random
from collections.abc import Container
from dataclasses import dataclass
from typing import Protocol

from demo_models import tasks, words
from demo_models.pipelines import SHORT, TRAINING, Difficulty

# Tokens of prompt and answer together that the models are trained for.
CONTEXT = 640
# Copying is found soonest where there is nothing else to learn, then where there is little to search.
_COPY_UNTIL = 0.08
_SHORT_UNTIL = 0.16


class Tokenizer(Protocol):
    """What is used of a SentencePieceProcessor; so this module needs neither SentencePiece nor PyTorch."""

    def encode(self, text: str) -> list[int]:
        """The text's tokens."""

    def bos_id(self) -> int:
        """Begin of text."""

    def eos_id(self) -> int:
        """End of text."""


@dataclass(frozen=True)
class Example:
    """A prompt with its answer.

    Attributes:
        tokens: ids, the end-of-text included.
        asked: how many of them are the prompt: foretelling those is not learned.
    """

    tokens: tuple[int, ...]
    asked: int


class Source(Protocol):
    """Where examples come from."""

    def __call__(self, rng: random.Random, done: float) -> Example:
        """One more example; `done` is the share of the training that is over."""


def _difficulty(done: float) -> Difficulty:
    return SHORT if done < _SHORT_UNTIL else TRAINING


def copy_example(tokenizer: Tokenizer, rng: random.Random) -> Example:
    """Random text, and the same again as the answer."""
    pieces = [
        rng.choice((words.word, words.command, words.image, words.path))(rng) for _ in range(rng.randrange(3, 12))
    ]
    text = rng.choice((" ", "\n", "\n    - ", ", ")).join(pieces)
    return written_example(tokenizer, tasks.generator_prompt(text), text)


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids, with the begin-of-text that llama.cpp adds to a prompt."""
    return [tokenizer.bos_id(), *tokenizer.encode(text)]


@dataclass(frozen=True)
class GeneratorSource:
    """Copying, then prompts with their right answers; `held_out` pipelines never appear."""

    tokenizer: Tokenizer
    held_out: Container[str]

    def __call__(self, rng: random.Random, done: float) -> Example:
        if done < _COPY_UNTIL:
            return copy_example(self.tokenizer, rng)
        while True:
            task = tasks.make_task(rng, difficulty=_difficulty(done))
            example = written_example(self.tokenizer, tasks.generator_prompt(task.text), task.reference)
            if task.pipeline.digest not in self.held_out and len(example.tokens) <= CONTEXT:
                return example


def written_example(tokenizer: Tokenizer, prompt: str, answer: str) -> Example:
    """A prompt and what a generator should make of it."""
    asked = encode(tokenizer, prompt)
    written = [*tokenizer.encode(answer), tokenizer.eos_id()]
    return Example((*asked, *written), len(asked))
