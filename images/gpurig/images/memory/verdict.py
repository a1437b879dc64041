"""What fits on a card: whether, with how many layers, what context at most, which quantization, which tag."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from gpurig.common.gguf_file_types import quantization
from gpurig.images.memory.cards import Card, smallest_class
from gpurig.images.memory.forecast import Forecast, Model, forecast, retyped
from gpurig.images.memory.quantizations import LADDER, tensor_kinds
from gpurig.images.memory.settings import CONTEXT_STEP, LoadSettings
from gpurig.images.memory.weights import tensor_bytes

Answer = Literal["fits", "partly", "not"]
# Where the file does not say what context the model was trained for.
_UNKNOWN_CONTEXT = 131072


@dataclass(frozen=True)
class Quantized:
    """A quantization of the model and what it would take on the fullest card, with the same settings."""

    name: str
    file_bytes: int
    gpu_bytes: int


@dataclass(frozen=True)
class Verdict:
    """What fits on a card.

    Attributes:
        card: the card.
        forecast: with all layers on the GPU, or as many as were asked for.
        answer: "fits"; "partly": some of those layers; "not": not even one.
        gpu_layers: layers that fit, the output layer counting as one.
        best_forecast: with those layers; None where none fits.
        largest_context: tokens, with all layers on the GPU; 0 where not even the smallest fits.
        quantization: the best one of the ladder that fits as it is asked for; None where none does.
    """

    card: Card
    forecast: Forecast
    answer: Answer
    gpu_layers: int
    best_forecast: Forecast | None
    largest_context: int
    quantization: Quantized | None


def judge(model: Model, settings: LoadSettings, card: Card) -> Verdict:
    """What of the model fits on the card (on each of `settings.gpus` such cards).

    Raises:
        InputError: the settings do not go with the model.
    """
    whole = forecast(model, settings)
    layers = _layers_that_fit(model, settings, card, whole)
    return Verdict(
        card=card,
        forecast=whole,
        answer="fits" if layers == whole.gpu_layers else "partly" if layers else "not",
        gpu_layers=layers,
        best_forecast=forecast(model, settings.with_layers(layers)) if layers else None,
        largest_context=_largest_context(model, settings, card),
        quantization=_best_quantization(model, settings, card),
    )


def tags_for_job(needed: Forecast) -> tuple[str, ...]:
    """The tags with which a job gets cards that have room for all of it; none where no card that is sold would do."""
    size = smallest_class(needed.gpu_bytes)
    if size is None:
        return ()
    count = needed.settings.gpus
    return (f"vram-{size}gb", f"gpus-{count}") if count > 1 else (f"vram-{size}gb",)


def _layers_that_fit(model: Model, settings: LoadSettings, card: Card, whole: Forecast) -> int:
    asked = whole.layers if settings.gpu_layers < 0 else min(settings.gpu_layers, whole.layers)
    # From the most on: a layer less may need more (borrowed matrices), so nothing is skipped.
    for layers in range(asked, 0, -1):
        if forecast(model, settings.with_layers(layers)).gpu_bytes <= card.usable_bytes:
            return layers
    return 0


def _largest_context(model: Model, settings: LoadSettings, card: Card) -> int:
    """Tokens of all sequences: in steps of a cache's cells, and no more than the model was trained for."""
    trained = (model.sizes.context or _UNKNOWN_CONTEXT) * (1 if settings.unified else settings.parallel)
    low, high = 0, -(-trained // CONTEXT_STEP)
    while low < high:
        middle = (low + high + 1) // 2
        tried = replace(settings, context=min(middle * CONTEXT_STEP, trained), gpu_layers=-1)
        if forecast(model, tried).gpu_bytes <= card.usable_bytes:
            low = middle
        else:
            high = middle - 1
    return min(low * CONTEXT_STEP, trained)


def _best_quantization(model: Model, settings: LoadSettings, card: Card) -> Quantized | None:
    own = quantization(model.gguf)
    for name in LADDER:
        other = model if name == own else retyped(model, tensor_kinds(model, name))
        found = forecast(other, replace(settings, gpu_layers=-1))
        if found.gpu_bytes <= card.usable_bytes:
            return Quantized(name, file_bytes(other), found.gpu_bytes)
    return None


def file_bytes(model: Model) -> int:
    """Bytes of all tensors of the model."""
    return sum(tensor_bytes(tensor, on_host=True) for tensor in model.gguf.tensors)
