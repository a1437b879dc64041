"""`gpurig models fit`: does a model fit on a card, and what would."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gpurig.images.memory.settings import KV_TYPES, FlashAttention
from gpurig.provisioning.paths import Paths
from gpurig.runner.commands.instance import instance_options
from gpurig.runner.commands.models_options import catalogue_option


@click.command(epilog="Example: gpurig models fit qwen3-4b-q4_k_m --vram 8GB --context 16384 --kv q8_0")
@click.argument("model")
@click.option("--vram", metavar="SIZE", help="8GB as sold, or 7.5GiB as free; this box's GPU where left out.")
@click.option(
    "--gpus", type=click.IntRange(1, 16), default=1, show_default=True, help="Such cards, sharing the layers."
)
@click.option("--context", type=int, metavar="N", help="Tokens of all sequences; as a job has them where left out.")
@click.option("--parallel", type=int, default=1, show_default=True, metavar="N", help="Sequences at a time.")
@click.option("--kv", type=click.Choice(KV_TYPES), default="f16", show_default=True, help="Type of the KV cache.")
@click.option("--batch", type=int, default=512, show_default=True, metavar="N", help="Tokens computed at a time.")
@click.option("--flash-attention", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True)
@click.option("--unified", is_flag=True, help="One KV cache for all sequences, as jobs with shared prefixes have it.")
@click.option("--window-cache", is_flag=True, help="Sliding windows get a cache of their own size, as in llama-server.")
@click.option("--gpu-layers", type=click.IntRange(min=0), metavar="N", help="At most so many layers on the GPU.")
@click.option(
    "--exact/--no-exact",
    default=None,
    help="Ask llama.cpp itself too; where left out, if it is installed and the file is here.",
)
@catalogue_option
@click.option(
    "--adapter",
    "adapters",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="A LoRA adapter (GGUF) that is loaded with it; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/models.md).")
@instance_options
def fit(
    *,
    model: str,
    vram: str | None,
    gpus: int,
    context: int | None,
    parallel: int,
    kv: str,
    batch: int,
    flash_attention: FlashAttention,
    unified: bool,
    window_cache: bool,
    gpu_layers: int | None,
    exact: bool | None,
    catalogues: tuple[Path, ...],
    adapters: tuple[Path, ...],
    as_json: bool,
    name: str,
    root: Path,
) -> None:
    """Tell whether a model fits on a GPU, before it is fetched.

    MODEL is a path, a model of this box, a name of the catalogue, hf:REPO/FILE.gguf, or an address. Only the header of
    a remote file is read. The answer names the largest context and the best quantization that fit, and the tag that a
    job should ask for.
    """
    from gpurig.images.memory.settings import LoadSettings  # noqa: PLC0415 - not needed for --help
    from gpurig.runner.commands import models_fit_view as view  # noqa: PLC0415 - likewise
    from gpurig.runner.fit import Wish, fit_model  # noqa: PLC0415 - likewise

    settings = LoadSettings(
        context=context if context is not None else 1,
        parallel=parallel,
        kv=kv,
        batch=batch,
        flash_attention=flash_attention,
        unified=unified,
        swa_full=not window_cache,
        gpu_layers=-1 if gpu_layers is None else gpu_layers,
        gpus=gpus,
    )
    found = fit_model(
        Wish(
            model,
            vram,
            settings,
            own_context=context is None,
            exact=exact,
            paths=Paths(root, name),
            catalogues=catalogues,
            adapters=adapters,
        )
    )
    click.echo(json.dumps(view.as_document(found), indent=2) if as_json else view.as_text(found))
