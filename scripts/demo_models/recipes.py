"""The two models' recipes, and the way from nothing to a committed file."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from demo_models import conversion, tasks, tokenizer, words
from demo_models.examples import GeneratorSource, GraderSource
from demo_models.suite_builder import held_out
from demo_models.training import Recipe, Shape, train

RECIPES = {
    "generator": Recipe(Shape(width=192, layers=5, hidden=512), steps=1400, batch_tokens=3072, seed=1),
    "grader": Recipe(Shape(width=192, layers=5, hidden=384), steps=1600, batch_tokens=3072, seed=2),
}
_TOKENIZER_SEED = 7
_TOKENIZER_TASKS = 4000


def train_tokenizer() -> bytes:
    """The tokenizer of both models, from tasks of its own."""
    rng = random.Random(_TOKENIZER_SEED)
    made = [tasks.make_task(rng) for _ in range(_TOKENIZER_TASKS)]
    return tokenizer.train(
        (f"{task.text}\n{task.reference}" for task in made), seed_words=(tasks.GOOD, tasks.BAD, *words.known())
    )


def make(which: str, work: Path, models: Path, threads: int) -> None:
    """Train, convert, quantize, and write the checksums."""
    torch.set_num_threads(threads)
    spelling = train_tokenizer()
    processor = tokenizer.load(spelling)
    source = (GeneratorSource if which == "generator" else GraderSource)(processor, held_out())
    model = train(RECIPES[which], source, processor.vocab_size())
    checkpoint = work / which
    vocabulary = [processor.id_to_piece(index) for index in range(processor.vocab_size())]
    conversion.write_checkpoint(model, spelling, vocabulary, checkpoint)
    tree = conversion.fetch_llama_cpp(work / "llama-cpp")
    target = models / f"demo-{which}.gguf"
    conversion.convert(checkpoint, tree, target, f"gpurig demo {which}")
    conversion.write_sums(models)
    print(f"{target}: {target.stat().st_size} bytes, {model.num_parameters()} parameters")
