"""The two models' recipes, and the way from nothing to a committed file."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from demo_models import conversion, tasks, tokenizer, words
from demo_models.examples import GeneratorSource
from demo_models.judging import train_grader
from demo_models.suite_builder import held_out
from demo_models.training import Recipe, Shape, train

_GENERATOR = Recipe(Shape(width=192, layers=7, hidden=320), steps=2000, batch_tokens=3072, seed=1)
_GRADER = Recipe(Shape(width=160, layers=4, hidden=384), steps=280, batch_tokens=2048, seed=2)
_TOKENIZER_SEED = 7
_TOKENIZER_TASKS = 4000


def train_tokenizer() -> bytes:
    """The tokenizer of both models, from tasks of its own."""
    rng = random.Random(_TOKENIZER_SEED)
    made = [tasks.make_task(rng) for _ in range(_TOKENIZER_TASKS)]
    return tokenizer.train(
        (f"{task.text}\n{task.reference}" for task in made), seed_words=(tasks.GOOD, tasks.BAD, *words.known())
    )


def make(which: str, work: Path, models: Path, threads: int, seed: int | None = None) -> None:
    """Train, convert, quantize, and write the checksums.

    Args:
        which: generator or grader.
        work: for the checkpoint and llama.cpp's tree.
        models: where the GGUF file is written.
        threads: each computes a part of every batch.
        seed: instead of the recipe's, to see how much of a figure is luck.
    """
    recipe = {"generator": _GENERATOR, "grader": _GRADER}[which]
    if seed is not None:
        recipe = replace(recipe, seed=seed)
    spelling = train_tokenizer()
    processor = tokenizer.load(spelling)
    size = processor.vocab_size()
    if which == "generator":
        model = train(recipe, GeneratorSource(processor, held_out()), size, threads=threads)
    else:
        model = train_grader(recipe, processor, held_out(), size, threads)
    checkpoint = work / which
    vocabulary = [processor.id_to_piece(index) for index in range(size)]
    conversion.write_checkpoint(model, spelling, vocabulary, checkpoint)
    tree = conversion.fetch_llama_cpp(work / "llama-cpp")
    target = models / f"demo-{which}.gguf"
    conversion.convert(checkpoint, tree, target, f"gpurig demo {which}")
    conversion.write_sums(models)
    print(f"{target}: {target.stat().st_size} bytes, {model.num_parameters()} parameters")
