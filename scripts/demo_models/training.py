"""Training from scratch on generated data, on a CPU in minutes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from demo_models.examples import CONTEXT, Example, Source

# There is one first fault among many right tokens, and none in a right answer.
_FAULT_WEIGHT = 20.0


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
        fault_layer: after how many layers a fault must be visible, so that the layers above can gather what was seen;
            0: after the last one, and nothing is gathered.
    """

    shape: Shape
    steps: int
    batch_tokens: int
    seed: int
    muon_rate: float = 0.02
    adam_rate: float = 0.003
    fault_layer: int = 0


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


def grow(model: LlamaForCausalLM, shape: Shape, seed: int) -> LlamaForCausalLM:
    """A model of more layers that does what `model` does: the new ones add nothing until they have learned to."""
    grown = new_model(shape, model.config.vocab_size, seed)
    grown.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        for layer in grown.model.layers[model.config.num_hidden_layers :]:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return grown


@dataclass(frozen=True)
class Batch:
    """Examples as tensors of (examples, tokens); see Example for their meaning."""

    ids: torch.Tensor
    weights: torch.Tensor
    faults: torch.Tensor
    broken: torch.Tensor


class Probes(torch.nn.Module):
    """Outputs that only training has: is this token the first fault, and was there one up to here?"""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.layer = recipe.fault_layer
        self.fault = torch.nn.Linear(recipe.shape.width, 2)
        self.broken = torch.nn.Linear(recipe.shape.width, 2)

    def forward(self, states: tuple[torch.Tensor, ...], last: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The loss of both, 0 where the batch asks for neither."""
        asked = batch.faults >= 0
        if not bool(asked.any()):
            return torch.zeros(())
        seen = last
        if self.layer:
            seen = torch.nn.functional.rms_norm(states[self.layer], last.shape[-1:])
        balance = torch.tensor([1.0, _FAULT_WEIGHT])
        loss = torch.nn.functional.cross_entropy(self.fault(seen[asked]).float(), batch.faults[asked], weight=balance)
        if self.layer:
            answered = batch.broken >= 0
            loss = loss + torch.nn.functional.cross_entropy(self.broken(last[answered]).float(), batch.broken[answered])
        return loss


def train(
    recipe: Recipe, source: Source, vocabulary: int, *, start: LlamaForCausalLM | None = None, log_every: int = 50
) -> LlamaForCausalLM:
    """Train, from `start` or from random weights; prints the loss as it goes."""
    model = start or new_model(recipe.shape, vocabulary, recipe.seed)
    model.train()
    probes = Probes(recipe)
    matrices = [p for name, p in model.model.layers.named_parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is m for m in matrices)] + list(probes.parameters())
    optimizers = (
        torch.optim.Muon(matrices, lr=recipe.muon_rate, weight_decay=0.01, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=recipe.adam_rate, betas=(0.9, 0.95), weight_decay=0.01),
    )
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    started, tokens = time.monotonic(), 0
    for step, batch in zip(range(recipe.steps), batches(source, recipe), strict=False):
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * _schedule(step / recipe.steps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, aux = losses(model, probes, batch)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        (loss + aux).backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        tokens += sum(len(example.tokens) for example in batch)
        if step % log_every == 0 or step == recipe.steps - 1:
            seconds = time.monotonic() - started
            print(
                f"step {step:5d}/{recipe.steps}  loss {loss.item():.4f}  faults {aux.item():.4f}  "
                f"{tokens / seconds:6.0f} tokens/s  {seconds:5.0f} s",
                flush=True,
            )
    return model.eval()


def _schedule(done: float) -> float:
    """Warm-up over 2 %, then linear to zero over the last 60 %."""
    return min(1.0, (done + 1e-3) / 0.02) * min(1.0, (1.0 - done) / 0.6)


def losses(model: LlamaForCausalLM, probes: Probes, examples: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of the learned tokens, and the probes' loss."""
    batch = _batch(examples)
    done = model.model(input_ids=batch.ids, output_hidden_states=bool(probes.layer))
    wanted = batch.weights > 0
    labels = torch.roll(batch.ids, -1, dims=1)[wanted]
    logits = model.lm_head(done.last_hidden_state[wanted]).float()
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    loss = (each * batch.weights[wanted]).sum() / batch.weights.sum()
    return loss, probes(done.hidden_states, done.last_hidden_state, batch)


def _batch(examples: list[Example]) -> Batch:
    shape = (len(examples), max(len(example.tokens) for example in examples))
    batch = Batch(
        ids=torch.zeros(shape, dtype=torch.long),
        weights=torch.zeros(shape),
        faults=torch.full(shape, -1),
        broken=torch.full(shape, -1),
    )
    for row, example in enumerate(examples):
        size = len(example.tokens)
        batch.ids[row, :size] = torch.tensor(example.tokens)
        batch.weights[row, : size - 1] = torch.tensor(example.weights[1:])
        if example.faults:
            batch.faults[row, :size] = torch.tensor(example.faults)
            batch.broken[row, :size] = torch.tensor(example.broken)
    return batch


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
