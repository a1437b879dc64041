"""`gpurig-job score`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpurig.common.errors import InputError
from gpurig.common.terminal import harmless, shorten, table
from gpurig.evaljobs.options import ModelOptions, model_options

if TYPE_CHECKING:
    from gpurig.evaljobs.records import Score

_SHOWN = 5
# Raised when a key of --json changes its meaning or goes; new keys leave it as it is.
SCHEMA = 1
_BY = {"sum": "log-likelihood", "token": "log-likelihood a token", "byte": "log-likelihood a byte"}


@click.command(epilog="Example: gpurig-job score questions.jsonl --model qwen2.5-coder-7b --out report")
@click.argument("items", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--model", "name", required=True, metavar="MODEL", help="A model's name, or the path of a GGUF file.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("report"),
    show_default=True,
    help="The folder of scores.jsonl.",
)
@click.option("--context", type=click.IntRange(min=16), metavar="N", help="Tokens; what the model was trained for.")
@click.option(
    "--overlap",
    type=click.IntRange(min=0),
    metavar="N",
    help="Tokens that each later window of a long text has before the first that it scores; half a context if absent.",
)
@click.option(
    "--kv",
    default="auto",
    show_default=True,
    help="Type of the KV cache: f16, f32 …; auto: f32 for a model in F32, f16 for others.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/score.md).")
@model_options
def score(
    *,
    items: Path,
    name: str,
    out: Path,
    context: int | None,
    overlap: int | None,
    kv: str,
    as_json: bool,
    models: ModelOptions,
) -> None:
    """Score what others wrote: choices of questions, and whole texts.

    FILE is JSON Lines: {"prompt": …, "choices": [...], "answer": 0} asks how probable each choice is as the prompt's
    continuation, {"text": …} how probable a text is. Prints accuracy and perplexity; scores.jsonl in the folder --out
    has every log-likelihood. Run again, it does only what is missing.
    """
    from gpurig.evaljobs.engine import EngineSettings, cache_type, context_size, thread_count  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.models import open_model  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.scoring.items import read_items  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.scoring.run import ScoreSettings  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.scoring.run import score as run  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.store import locked  # noqa: PLC0415 - heavy

    wanted = read_items(items)
    model = open_model(name, search=models.search(), suite_folder=Path())
    size = context_size(model, context)
    if overlap is not None and overlap >= size:
        raise InputError(f"--overlap {overlap} leaves nothing of a context of {size} tokens", hint="give a smaller one")
    settings = ScoreSettings(
        model=model,
        engine=EngineSettings(
            size,
            thread_count(model, models.threads),
            parallel=models.parallel,
            exact=models.exact,
            cache=cache_type(model, kv),
        ),
        overlap=size // 2 if overlap is None else overlap,
        out=out,
    )
    with locked(out):
        found = tuple(run(settings, wanted).values())
    failed = [one for one in found if one.error]
    if as_json:
        click.echo(json.dumps(_figures(found)))
    else:
        _tell(found, model.ref.name)
    for one in failed[:_SHOWN]:
        click.echo(shorten(f"  {harmless(one.sample)}: {harmless(one.error)}", 80), err=True)
    if len(failed) == len(found):
        raise InputError("nothing could be scored", hint="the lines above say why")
    if failed:
        click.echo(f"{len(failed)} of {len(found)} lines could not be scored", err=True)


def _figures(scores: Sequence[Score]) -> dict[str, object]:
    from gpurig.evaljobs.scoring.figures import NORMALIZATIONS, accuracy, perplexity  # noqa: PLC0415 - heavy

    found = {name: accuracy(scores, name) for name in NORMALIZATIONS}
    texts = perplexity(scores)
    return {
        "schema": SCHEMA,
        "accuracy": {name: asdict(one) for name, one in found.items() if one is not None},
        "perplexity": None if texts is None else asdict(texts),
    }


def _tell(scores: Sequence[Score], model: str) -> None:
    from gpurig.evaljobs.scoring.figures import NORMALIZATIONS, accuracy, perplexity  # noqa: PLC0415 - heavy

    rows = [
        [
            f"right by {_BY[name]}",
            f"{100 * one.value:.1f} %",
            f"{100 * one.low:.1f} to {100 * one.high:.1f} %",
            str(one.n),
        ]
        for name in NORMALIZATIONS
        if (one := accuracy(scores, name)) is not None
    ]
    click.echo(f"\n{shorten(harmless(model), 60)}: {len(scores)} lines scored\n")
    if rows:
        click.echo(table(["choices", "value", "95 % interval", "questions"], rows))
    elif questions := sum(one.kind == "choices" for one in scores):
        click.echo(f"{questions} questions, none of which has an answer: scores.jsonl has their log-likelihoods")
    if (texts := perplexity(scores)) is not None:
        named = {"a token": texts.token, "a byte": texts.byte, "a word": texts.word}
        shown = [[f"perplexity, {name}", f"{value:.4g}"] for name, value in named.items()]
        count = sum(one.kind == "text" for one in scores)
        click.echo(
            table(
                [f"texts: {count}", f"{texts.tokens} tokens"], [*shown, ["bits a byte", f"{texts.bits_per_byte:.4f}"]]
            )
        )
