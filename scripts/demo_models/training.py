"""Training from scratch on generated data, on a CPU in minutes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from demo_models.examples import CONTEXT, Example, Source

Item = TypeVar("Item")
Told = TypeVar("Told")


@dataclass(frozen=True)
class Shape:
    """A Llama's dimensions; `head_size` is 32 for both models."""

    width: int
    layers: int
    hidden: int

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.width // 32


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        steps: optimizer steps.
        batch_tokens: tokens of one step, padding included.
        seed: of the weights and of all data.
        muon_rate, adam_rate: peak learning rates of the matrices and of everything else.
    """

    shape: Shape
    steps: int
    batch_tokens: int
    seed: int
    muon_rate: float = 0.02
    adam_rate: float = 0.003


def new_model(shape: Shape, vocabulary: int, seed: int) -> LlamaForCausalLM:
    """Random weights that follow from the seed."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=CONTEXT,
            rope_theta=10000.0,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=2,
            initializer_range=0.02,
            attn_implementation="eager",
        )
    )


Optimizers = tuple[torch.optim.Optimizer, torch.optim.Optimizer]


def optimizers_of(model: LlamaForCausalLM, recipe: Recipe) -> Optimizers:
    """Muon for the layers' matrices, AdamW for everything else, in this order."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is m for m in matrices)]
    return (
        torch.optim.Muon(matrices, lr=recipe.muon_rate, weight_decay=0.01, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=recipe.adam_rate, betas=(0.9, 0.95), weight_decay=0.01),
    )


def set_rates(optimizers: Optimizers, recipe: Recipe, step: int) -> None:
    """The learning rates of a step: warm-up over 2 %, then linear to zero over the last 60 %."""
    done = step / recipe.steps
    share = min(1.0, (done + 1e-3) / 0.02) * min(1.0, (1.0 - done) / 0.6)
    for optimizer, peak in zip(optimizers, (recipe.muon_rate, recipe.adam_rate), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = peak * share


class Learner:
    """Optimizer steps, of which each thread computes a part of the batch.

    Threads within an operation make models of this size slower where the cores are not free: every one of thousands of
    operations waits for its last thread. Here they meet once a step.
    """

    def __init__(self, optimizers: Optimizers, recipe: Recipe, threads: int) -> None:
        torch.set_num_threads(1)
        self._optimizers = optimizers
        self._recipe = recipe
        self._parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def step(
        self, number: int, batch: list[Item], loss_of: Callable[[list[Item]], tuple[torch.Tensor, Told]]
    ) -> list[Told]:
        """Learn from a batch; what `loss_of` gave beside the loss of each part, and how the batch was divided.

        Args:
            number: of the step, for the learning rates.
            batch: examples; part k of n is `batch[k::n]`.
            loss_of: the mean loss over a part, and what else is of interest.
        """
        parts = [batch[start :: self._threads] for start in range(min(self._threads, len(batch)))]
        done = list(self._pool.map(lambda part: self._gradients(part, loss_of), parts))
        for parameter, *gradients in zip(self._parameters, *(gradients for gradients, _ in done), strict=True):
            parameter.grad = torch.stack(gradients).mean(0)
        set_rates(self._optimizers, self._recipe, number)
        # Muon's updates have one size whatever the gradient; the others are clipped.
        torch.nn.utils.clip_grad_norm_(self._optimizers[1].param_groups[0]["params"], 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        return [rest for _, rest in done]

    def _gradients(
        self, part: list[Item], loss_of: Callable[[list[Item]], tuple[torch.Tensor, Told]]
    ) -> tuple[tuple[torch.Tensor, ...], Told]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, rest = loss_of(part)
        return torch.autograd.grad(loss, self._parameters), rest


def train(recipe: Recipe, source: Source, vocabulary: int, *, threads: int, log_every: int = 50) -> LlamaForCausalLM:
    """Train from random weights; prints the loss as it goes."""
    model = new_model(recipe.shape, vocabulary, recipe.seed)
    model.train()
    learner = Learner(optimizers_of(model, recipe), recipe, threads)
    started, tokens = time.monotonic(), 0
    for step, batch in zip(range(recipe.steps), batches(source, recipe), strict=False):
        losses = learner.step(step, batch, lambda part: _with_value(loss_of(model, part)))
        tokens += sum(len(example.tokens) for example in batch)
        if step % log_every == 0 or step == recipe.steps - 1:
            seconds = time.monotonic() - started
            print(
                f"step {step:5d}/{recipe.steps}  loss {sum(losses) / len(losses):.4f}  "
                f"{tokens / seconds:6.0f} tokens/s  {seconds:5.0f} s",
                flush=True,
            )
    return model.eval()


def _with_value(loss: torch.Tensor) -> tuple[torch.Tensor, float]:
    return loss, loss.item()


def loss_of(model: LlamaForCausalLM, examples: list[Example]) -> torch.Tensor:
    """Cross-entropy of the learned tokens."""
    length = max(len(example.tokens) for example in examples)
    ids = torch.zeros(len(examples), length, dtype=torch.long)
    learned = torch.zeros(len(examples), length, dtype=torch.bool)
    for row, example in enumerate(examples):
        size = len(example.tokens)
        ids[row, :size] = torch.tensor(example.tokens)
        learned[row, example.asked - 1 : size - 1] = True
    hidden = model.model(input_ids=ids).last_hidden_state
    labels = torch.roll(ids, -1, dims=1)[learned]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[learned]).float(), labels)


def batches(source: Source, recipe: Recipe) -> Iterator[list[Example]]:
    """Batches of similar lengths, in random order, for ever."""
    rng = random.Random(recipe.seed)
    steps = 0
    while True:
        done = steps / recipe.steps
        pool = sorted((source(rng, done) for _ in range(512)), key=lambda example: len(example.tokens))
        made: list[list[Example]] = [[]]
        for example in pool:
            if (len(made[-1]) + 1) * len(example.tokens) > recipe.batch_tokens:
                made.append([])
            made[-1].append(example)
        rng.shuffle(made)
        steps += len(made)
        yield from made
