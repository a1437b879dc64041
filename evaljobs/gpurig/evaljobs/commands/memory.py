"""`gpurig-job memory`: what llama.cpp would allocate, told by llama.cpp."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from gpurig.common.errors import InputError
from gpurig.common.terminal import table

# Raised when a key of --json changes its meaning or goes; new keys leave it as it is.
SCHEMA = 1
_MIB = 2**20


@click.command(epilog="Example: gpurig-job memory model.gguf --context 16384 --card-mib 8192")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--context", type=click.IntRange(min=0), default=4096, show_default=True, help="Tokens, all sequences.")
@click.option("--parallel", type=click.IntRange(1, 256), default=1, show_default=True, help="Sequences.")
@click.option("--kv", default="f16", show_default=True, help="Type of the KV cache: f16, q8_0, q4_0 …")
@click.option("--batch", type=click.IntRange(min=1), default=512, show_default=True, help="Tokens computed at a time.")
@click.option("--flash-attention", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True)
@click.option("--unified", is_flag=True, help="One KV cache for all sequences.")
@click.option("--window-cache", is_flag=True, help="Sliding windows get a cache of their own size.")
@click.option("--gpu-layers", type=int, default=-1, show_default=True, help="Layers on the GPU; -1 for all.")
@click.option(
    "--card-mib",
    type=click.IntRange(min=1),
    multiple=True,
    metavar="MIB",
    help="Plan for a GPU with so much memory instead of this machine's devices; again for another one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/models.md).")
def memory(*, model: Path, card_mib: tuple[int, ...], window_cache: bool, as_json: bool, **wishes: Any) -> None:
    """Show what llama.cpp would allocate for a model.

    llama.cpp itself places every tensor of MODEL and plans the graph; its weights are not read, and nothing large is
    allocated.
    """
    from gpurig.evaljobs.memory import CACHE_TYPES, MemoryRequest, measure  # noqa: PLC0415 - not needed for --help

    if wishes["kv"] not in CACHE_TYPES:
        raise InputError(f'--kv "{wishes["kv"]}" is no type of KV cache', hint="one of " + ", ".join(CACHE_TYPES))
    request = MemoryRequest(**wishes, swa_full=not window_cache, cards=tuple(size * _MIB for size in card_mib))
    (buffers,) = measure(model, [request])
    if as_json:
        document = {"schema": SCHEMA, "request": asdict(request), "buffers": [asdict(buffer) for buffer in buffers]}
        click.echo(json.dumps(document, indent=2))
        return
    rows = [
        (
            buffer.device,
            *(f"{size / _MIB:.1f}" for size in (buffer.model_bytes, buffer.context_bytes, buffer.compute_bytes)),
        )
        for buffer in buffers
    ]
    click.echo(table(("MiB on", "weights", "KV cache", "compute"), rows))
