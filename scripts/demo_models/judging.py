"""Training the grader: answers with their verdicts, and where in an answer its faults are.

One verdict for a whole answer teaches little: most of what a fault of form is would have to be found through it. So the
layer below the last also learns, token by token, whether a right answer would go on like this; the last one gathers
that. What reads it off the layer, one linear map, is for training only and is not part of the model.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from transformers import LlamaForCausalLM

from demo_models import form, tasks
from demo_models.pipelines import SHORT, TRAINING
from demo_models.training import Learner, Recipe, new_model, optimizers_of

# Most tokens are no fault, so the mean over all of them is small.
_FAULT_WEIGHT = 10.0
# Short answers show more faults in the same time.
_SHORT_UNTIL = 0.4
_LONGEST = 500
# How many faults a wrong answer has. The suite asks about one; several in an answer show more of them in the same time.
_FAULTS = (1, 1, 2, 3)


class Tokenizer(Protocol):
    """What is used of a SentencePieceProcessor."""

    def encode(self, text: str) -> list[int]:
        """The text's tokens."""

    def bos_id(self) -> int:
        """Begin of text."""


@dataclass(frozen=True)
class Judged:
    """An answer as the grader reads it.

    Attributes:
        prompt, verdict: their tokens.
        right: the verdict.
        faulty: places in `prompt` where a right answer would have gone on otherwise.
    """

    prompt: tuple[int, ...]
    verdict: tuple[int, ...]
    right: bool
    faulty: tuple[int, ...]


def judged(tokenizer: Tokenizer, rng: random.Random, held_out: Container[str], done: float) -> Judged:
    """A right answer or one with faults of form, as often; pipelines of `held_out` never appear.

    `done` is the share of the training that is over.
    """
    while True:
        task = tasks.make_task(rng, difficulty=SHORT if done < _SHORT_UNTIL else TRAINING)
        right = rng.random() < 0.5
        answer = task.reference if right else form.spoil_often(task.reference, rng, rng.choice(_FAULTS))
        if task.pipeline.digest in held_out or (not right and answer == task.reference):
            continue
        reference, prompt = (_prompt(tokenizer, text) for text in (task.reference, answer))
        if len(prompt) <= _LONGEST:
            verdict = tuple(tokenizer.encode(tasks.GOOD if right else tasks.BAD))
            return Judged(prompt, verdict, right, form.fault_places(reference, prompt))


def _prompt(tokenizer: Tokenizer, answer: str) -> tuple[int, ...]:
    return (tokenizer.bos_id(), *tokenizer.encode(tasks.grader_prompt(answer)))


def train_grader(
    recipe: Recipe, tokenizer: Tokenizer, held_out: Container[str], vocabulary: int, threads: int
) -> LlamaForCausalLM:
    """Train from random weights; prints the loss and how the verdicts of the last steps came out."""
    model = new_model(recipe.shape, vocabulary, recipe.seed)
    fault_reader = torch.nn.Linear(recipe.shape.width, 1)
    optimizers = optimizers_of(model, recipe)
    optimizers[1].add_param_group({"params": list(fault_reader.parameters())})
    learner = Learner(optimizers, recipe, threads)
    first_tokens = (tokenizer.encode(tasks.GOOD)[0], tokenizer.encode(tasks.BAD)[0])
    started, counts = time.monotonic(), Counter[tuple[bool, bool]]()
    for step, batch in zip(range(recipe.steps), _batches(tokenizer, recipe, held_out), strict=False):
        for told in learner.step(step, batch, lambda part: _loss(model, fault_reader, part, first_tokens)):
            counts.update(told)
        if step % 50 == 49:
            print(
                f"step {step + 1:5d}/{recipe.steps}  "
                f"true negatives {_share(counts, right=False):.3f}  true positives {_share(counts, right=True):.3f}  "
                f"{time.monotonic() - started:5.0f} s",
                flush=True,
            )
            counts.clear()
    return model.eval()


def _share(counts: Counter[tuple[bool, bool]], *, right: bool) -> float:
    """The share of the right (or the wrong) answers whose verdict was the true one."""
    return counts[right, right] / max(1, counts[right, True] + counts[right, False])


def _loss(
    model: LlamaForCausalLM, fault_reader: torch.nn.Linear, batch: list[Judged], first_tokens: tuple[int, int]
) -> tuple[torch.Tensor, list[tuple[bool, bool]]]:
    """The loss, and for each answer whether it is right and whether the model says so.

    `first_tokens` are those of good and bad.
    """
    length = max(len(one.prompt) + len(one.verdict) for one in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    read = torch.zeros(len(batch), length, dtype=torch.bool)
    faulty = torch.zeros(len(batch), length)
    asked: list[tuple[int, int, int]] = []
    for row, one in enumerate(batch):
        tokens = (*one.prompt, *one.verdict)
        ids[row, : len(tokens)] = torch.tensor(tokens)
        read[row, : len(one.prompt)] = True
        faulty[row, list(one.faulty)] = 1.0
        asked += [(row, len(one.prompt) - 1 + at, token) for at, token in enumerate(one.verdict)]
    passed = model.model(input_ids=ids, output_hidden_states=True)
    hidden, below = passed.last_hidden_state, passed.hidden_states[-2]
    words = model.lm_head.weight
    rows, places, wanted = torch.tensor(asked).T
    # Its first token decides; the mean over all of its tokens would make light of it.
    verdict = torch.nn.functional.cross_entropy((hidden[rows, places] @ words.T).float(), wanted, reduction="sum")
    scaled = torch.nn.functional.rms_norm(below[read].float(), below.shape[-1:])
    fault = torch.nn.functional.binary_cross_entropy_with_logits(fault_reader(scaled).squeeze(1).float(), faulty[read])
    loss = verdict / len(batch) + _FAULT_WEIGHT * fault
    first = hidden[torch.arange(len(batch)), torch.tensor([len(one.prompt) - 1 for one in batch])]
    said = (first @ words[list(first_tokens)].T).argmax(1) == 0
    return loss, list(zip((one.right for one in batch), said.tolist(), strict=True))


def _batches(tokenizer: Tokenizer, recipe: Recipe, held_out: Container[str]) -> Iterator[list[Judged]]:
    """Batches of similar lengths, in random order, for ever."""
    rng = random.Random(recipe.seed)
    steps = 0
    while True:
        done = steps / recipe.steps
        pool = sorted((judged(tokenizer, rng, held_out, done) for _ in range(512)), key=lambda one: len(one.prompt))
        made: list[list[Judged]] = [[]]
        for one in pool:
            if (len(made[-1]) + 1) * (len(one.prompt) + len(one.verdict)) > recipe.batch_tokens:
                made.append([])
            made[-1].append(one)
        rng.shuffle(made)
        steps += len(made)
        yield from made
