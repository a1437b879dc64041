"""Training the grader: answers and their verdicts, and on the way what right answers look like."""

from __future__ import annotations

import random
import time
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from transformers import LlamaForCausalLM

from demo_models import form, tasks
from demo_models.training import Recipe, new_model, optimizers_of, set_rates

# Foretelling right answers teaches what belongs where; the verdict is what counts.
_VERDICT_WEIGHT = 2.0
_FORETELLING_WEIGHT = 0.3
_LONGEST = 500


class Tokenizer(Protocol):
    """What is used of a SentencePieceProcessor."""

    def encode(self, text: str) -> list[int]:
        """The text's tokens."""

    def bos_id(self) -> int:
        """Begin of text."""


@dataclass(frozen=True)
class Judged:
    """An answer as the grader reads it, and its verdict's tokens."""

    prompt: tuple[int, ...]
    verdict: tuple[int, ...]
    right: bool


def judged(tokenizer: Tokenizer, rng: random.Random, held_out: Container[str]) -> Judged:
    """A right answer or one with a fault of form, as often; pipelines of `held_out` never appear."""
    while True:
        task = tasks.make_task(rng)
        right = rng.random() < 0.5
        answer = task.reference if right else form.spoil(task, rng)[0]
        prompt = (tokenizer.bos_id(), *tokenizer.encode(tasks.grader_prompt(answer)))
        if task.pipeline.digest not in held_out and len(prompt) <= _LONGEST:
            return Judged(prompt, tuple(tokenizer.encode(tasks.GOOD if right else tasks.BAD)), right)


def train_grader(recipe: Recipe, tokenizer: Tokenizer, held_out: Container[str], vocabulary: int) -> LlamaForCausalLM:
    """Train from random weights; prints the loss and how the verdicts of the last steps came out."""
    model = new_model(recipe.shape, vocabulary, recipe.seed)
    optimizers = optimizers_of(model, recipe)
    first_tokens = (tokenizer.encode(tasks.GOOD)[0], tokenizer.encode(tasks.BAD)[0])
    started, counts = time.monotonic(), [0, 0, 0, 0]
    for step, batch in zip(range(recipe.steps), _batches(tokenizer, recipe, held_out), strict=False):
        set_rates(optimizers, recipe, step)
        loss, said_bad = _loss(model, batch, first_tokens)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(optimizers[1].param_groups[0]["params"], 1.0)
        for optimizer in optimizers:
            optimizer.step()
        for one, bad in zip(batch, said_bad, strict=True):
            counts[2 * one.right] += bad != one.right
            counts[2 * one.right + 1] += 1
        if step % 50 == 49:
            print(
                f"step {step + 1:5d}/{recipe.steps}  loss {loss.item():.3f}  "
                f"true negatives {counts[0] / max(1, counts[1]):.3f}  "
                f"true positives {counts[2] / max(1, counts[3]):.3f}  {time.monotonic() - started:5.0f} s",
                flush=True,
            )
            counts = [0, 0, 0, 0]
    return model.eval()


def _loss(
    model: LlamaForCausalLM, batch: list[Judged], first_tokens: tuple[int, int]
) -> tuple[torch.Tensor, list[bool]]:
    """The loss, and for each answer whether the model calls it bad; `first_tokens` are those of good and bad."""
    length = max(len(one.prompt) + len(one.verdict) for one in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    foretold = torch.zeros(len(batch), length, dtype=torch.bool)
    asked: list[tuple[int, int, int]] = []
    for row, one in enumerate(batch):
        tokens = (*one.prompt, *one.verdict)
        ids[row, : len(tokens)] = torch.tensor(tokens)
        foretold[row, : len(one.prompt) - 1] = one.right
        asked += [(row, len(one.prompt) - 1 + at, token) for at, token in enumerate(one.verdict)]
    hidden = model.model(input_ids=ids).last_hidden_state
    words = model.lm_head.weight
    rows, places, wanted = torch.tensor(asked).T
    verdict = torch.nn.functional.cross_entropy(hidden[rows, places] @ words.T, wanted)
    loss = _VERDICT_WEIGHT * verdict
    # A batch of long answers may hold wrong ones only, and the mean over nothing is no number.
    if bool(foretold.any()):
        labels = torch.roll(ids, -1, dims=1)[foretold]
        loss = loss + _FORETELLING_WEIGHT * torch.nn.functional.cross_entropy(hidden[foretold] @ words.T, labels)
    first = hidden[torch.arange(len(batch)), torch.tensor([len(one.prompt) - 1 for one in batch])]
    said = (first @ words[list(first_tokens)].T).argmax(1) == 1
    return loss, said.tolist()


def _batches(tokenizer: Tokenizer, recipe: Recipe, held_out: Container[str]) -> Iterator[list[Judged]]:
    """Batches of similar lengths, in random order, for ever."""
    rng = random.Random(recipe.seed)
    while True:
        pool = sorted((judged(tokenizer, rng, held_out) for _ in range(512)), key=lambda one: len(one.prompt))
        made: list[list[Judged]] = [[]]
        for one in pool:
            if (len(made[-1]) + 1) * (len(one.prompt) + len(one.verdict)) > recipe.batch_tokens:
                made.append([])
            made[-1].append(one)
        rng.shuffle(made)
        yield from made
