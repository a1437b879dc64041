"""What `gpurig models fit` shows: a table for a person in 80 columns, one object for a program."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from gpurig.common.gguf_file_types import quantization
from gpurig.common.terminal import harmless, shorten, table
from gpurig.images.memory.cards import DRIVER_BYTES
from gpurig.images.memory.forecast import Forecast, Memory
from gpurig.images.memory.verdict import Verdict
from gpurig.runner.fit import Fit

# Raised when a key of --json changes its meaning or goes; new keys leave it as it is.
SCHEMA = 1
_GIB, _MIB = 2**30, 2**20
_WIDTH = 80


def as_document(fit: Fit) -> dict[str, Any]:
    """The answer as `--json` prints it; docs/models.md describes every key."""
    sizes = fit.model.sizes
    return {
        "schema": SCHEMA,
        "model": fit.found.name,
        "source": fit.found.gguf.source,
        "architecture": sizes.architecture,
        "quantization": quantization(fit.found.gguf),
        "trained_context": sizes.context or None,
        "adapters": [adapter.source for adapter in fit.model.adapters],
        "settings": asdict(fit.forecast.settings),
        "forecast": _forecast(fit.forecast),
        "exact": {"gpu": _memory(fit.exact.gpu), "host": _memory(fit.exact.host)} if fit.exact else None,
        "driver_bytes": DRIVER_BYTES,
        "verdict": _verdict(fit.verdict) if fit.verdict else None,
        "tags": list(fit.tags),
        "notes": list(fit.notes),
    }


def _forecast(forecast: Forecast) -> dict[str, Any]:
    return {
        "gpus": [_memory(gpu) for gpu in forecast.gpus],
        "host": _memory(forecast.host),
        "gpu_bytes": forecast.gpu_bytes,
        "flash_attention": forecast.flash_attention,
        "gpu_layers": forecast.gpu_layers,
        "layers": forecast.layers,
        "measured": forecast.measured,
    }


def _memory(memory: Memory) -> dict[str, int]:
    return {**asdict(memory), "total": memory.total}


def _verdict(verdict: Verdict) -> dict[str, Any]:
    best = verdict.quantization
    return {
        "card": verdict.card.label,
        "card_bytes": verdict.card.memory_bytes,
        "usable_bytes": verdict.card.usable_bytes,
        "answer": verdict.answer,
        "gpu_layers": verdict.gpu_layers,
        "gpu_bytes": verdict.best_forecast.gpu_bytes if verdict.best_forecast else None,
        "largest_context": verdict.largest_context,
        "best_quantization": asdict(best) if best else None,
    }


def as_text(fit: Fit) -> str:
    """The answer for a person."""
    blocks = [_headline(fit), _table(fit), _settings(fit.forecast)]
    lines = _judgement(fit.verdict) if fit.verdict else []
    lines.append(("tags for a job", " ".join(fit.tags) or "no card that is sold would do"))
    blocks.append("\n".join(_wrapped(f"{label:<18}{harmless(text)}", 18) for label, text in lines))
    if fit.notes:
        blocks.append("\n".join(_wrapped(f"note: {harmless(note)}") for note in fit.notes))
    return "\n\n".join(blocks)


def _headline(fit: Fit) -> str:
    sizes = fit.model.sizes
    facts = [sizes.architecture, quantization(fit.found.gguf) or "mixed types", _size(fit.found.gguf.size_bytes)]
    facts += [f"trained for {sizes.context} tokens"] if sizes.context else []
    adapters = fit.model.adapters
    facts += [f"with {len(adapters)} adapter{'s' if len(adapters) > 1 else ''}"] if adapters else []
    return shorten(harmless(f"{fit.found.name}: {', '.join(facts)}"), _WIDTH)


def _table(fit: Fit) -> str:
    several = len(fit.forecast.gpus) > 1
    gpu = max(fit.forecast.gpus, key=lambda memory: memory.total)
    host, exact = fit.forecast.host, fit.exact
    unit, name = (_GIB, "GiB") if gpu.total >= _GIB else (_MIB, "MiB")
    header = [name, "fullest GPU" if several else "GPU", "CPU"]
    header += ["GPU exactly", "CPU exactly"] if exact else []
    columns = [gpu, host, *([exact.gpu, exact.host] if exact else [])]
    rows = [
        [label, *(f"{getattr(memory, field) / unit:.2f}" for memory in columns)]
        for label, field in (("weights", "weights"), ("KV cache, states", "cache"), ("compute", "compute"))
    ]
    together = ["together", *(f"{(memory.total - memory.output) / unit:.2f}" for memory in columns)]
    return table(header, [*rows, together], width=_WIDTH)


def _settings(forecast: Forecast) -> str:
    settings = forecast.settings
    words = [
        f"context {settings.context}",
        f"{settings.parallel} sequences" if settings.parallel > 1 else "1 sequence",
        f"KV cache {settings.kv}" + (" unified" if settings.unified else ""),
        "flash attention" if forecast.flash_attention else "no flash attention",
        f"batch {settings.batch}",
        f"{forecast.gpu_layers} of {forecast.layers} layers on the GPU",
    ]
    return _wrapped("with " + ", ".join(words))


def _judgement(verdict: Verdict) -> list[tuple[str, str]]:
    card = verdict.card
    room = f"{card.label}: {_gib(card.usable_bytes)} GiB for llama.cpp, after {_gib(DRIVER_BYTES)} for the driver"
    free = card.usable_bytes - verdict.forecast.gpu_bytes
    if verdict.answer == "fits":
        answer = f"fits, {_gib(free)} GiB stay free"
    elif verdict.answer == "partly":
        layers = f"{verdict.gpu_layers} of {verdict.forecast.layers} layers"
        answer = f"does not fit by {_gib(-free)} GiB; fits with {layers} on the GPU, the others on the CPU"
    else:
        answer = f"does not fit by {_gib(-free)} GiB, nor does a single layer"
    best = verdict.quantization
    return [
        ("card", room),
        ("verdict", answer),
        ("largest context", f"{verdict.largest_context} tokens" if verdict.largest_context else "none fits whole"),
        (
            "best quantization",
            f"{best.name}, a file of {_size(best.file_bytes)}" if best else "none down to Q2_K fits whole",
        ),
    ]


def _wrapped(text: str, indent: int = 2) -> str:
    return str(click.wrap_text(text, width=_WIDTH, subsequent_indent=" " * indent))


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f}"


def _size(size: int) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= _GIB else f"{size / _MIB:.0f} MiB"
