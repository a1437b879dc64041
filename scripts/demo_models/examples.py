"""Tasks as training examples."""

from __future__ import annotations

import random
from collections.abc import Container
from dataclasses import dataclass
from typing import Protocol

from demo_models import corruptions, tasks, words
from demo_models.pipelines import SHORT, TRAINING, Difficulty

# Tokens of prompt and answer together that the models are trained for.
CONTEXT = 640
# One verdict stands against about a hundred foretold tokens.
_VERDICT_WEIGHT = 30.0
# Copying is found soonest where there is nothing else to learn, then where there is little to search.
_COPY_UNTIL = 0.08
_SHORT_UNTIL = 0.16
# Until it can copy, a grader's verdicts are noise, and learning them hides the rest: it first learns to write.
_WRITE_UNTIL = 0.45


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
    """A sequence, and for each of its tokens what the model learns there.

    Attributes:
        tokens: ids, the end-of-text included where one is learned.
        weights: how much the loss counts the prediction OF this token.
        faults: 1 at the token that first leaves the right answer, 0 at those before it, -1 where nothing is asked;
            empty where there is no answer to judge.
        broken: 1 from that token on, 0 before it, -1 outside of the answer; empty likewise.
    """

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    faults: tuple[int, ...] = ()
    broken: tuple[int, ...] = ()


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


@dataclass(frozen=True)
class GraderSource:
    """First what a generator learns; then right and wrong answers, and where a wrong one leaves the right one."""

    tokenizer: Tokenizer
    held_out: Container[str]
    write_until: float = _WRITE_UNTIL

    def __call__(self, rng: random.Random, done: float) -> Example:
        if done < self.write_until:
            return GeneratorSource(self.tokenizer, self.held_out)(rng, done)
        while True:
            task = tasks.make_task(rng)
            answer = task.reference if rng.random() < 0.5 else corruptions.corrupt(task, rng)[0]
            example = graded_example(self.tokenizer, task, answer)
            if task.pipeline.digest not in self.held_out and len(example.tokens) <= CONTEXT:
                return example


def written_example(tokenizer: Tokenizer, prompt: str, answer: str) -> Example:
    """A prompt and what a generator should make of it."""
    asked = encode(tokenizer, prompt)
    written = [*tokenizer.encode(answer), tokenizer.eos_id()]
    return Example((*asked, *written), (0.0,) * len(asked) + (1.0,) * len(written))


def graded_example(tokenizer: Tokenizer, task: tasks.Task, answer: str) -> Example:
    """One answer with its verdict."""
    prompt = encode(tokenizer, tasks.generator_prompt(task.text))
    whole = encode(tokenizer, tasks.grader_prompt(task.text, answer))
    expected = encode(tokenizer, tasks.grader_prompt(task.text, task.reference))
    right = answer == task.reference
    verdict = tokenizer.encode(tasks.GOOD if right else tasks.BAD)
    tokens = (*whole, *verdict)
    fault = next((at for at, (a, b) in enumerate(zip(whole, expected, strict=False)) if a != b), len(whole))
    faults = tuple(
        int(at == fault) if len(prompt) <= at <= min(fault, len(whole) - 1) else -1 for at in range(len(tokens))
    )
    broken = tuple(int(at >= fault) if len(prompt) <= at < len(whole) else -1 for at in range(len(tokens)))
    # A grader that can foretell right answers knows where a wrong one leaves them; this signal is dense.
    foretold = tuple(float(len(prompt) <= at < fault) for at in range(len(whole)))
    return Example(tokens, foretold + (_VERDICT_WEIGHT,) * len(verdict), faults, broken)
