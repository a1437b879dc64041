"""What the KV cache and the recurrent states take: llama-kv-cache.cpp, llama-memory-recurrent.cpp."""

from __future__ import annotations

from gpurig.common.errors import InputError
from gpurig.images.memory.hyperparameters import Hyperparameters, Layer
from gpurig.images.memory.placement import HOST, Placement
from gpurig.images.memory.settings import LoadSettings

_ALIGNMENT = 128
_F32 = 4


def cache_by_device(
    model: Hyperparameters, settings: LoadSettings, placement: Placement, *, flash: bool
) -> dict[int, int]:
    """Bytes of caches and states by device (HOST, or a GPU's number).

    Raises:
        InputError: the cache's type does not go with the model's head sizes.
    """
    check_cache_type(model, settings)
    sizes = dict.fromkeys((HOST, *range(placement.gpus)), 0)
    for index, layer in enumerate(model.layers):
        size = _layer_bytes(model, layer, settings, flash=flash) if layer.cached else 0
        if layer.recurrent:
            # A row a sequence, in f32 whatever the cache's type.
            size += _aligned(model.convolution * settings.parallel * _F32)
            size += _aligned(model.state * settings.parallel * _F32)
        sizes[placement.devices[index]] += size
    return sizes


def largest_layer(model: Hyperparameters, settings: LoadSettings, *, flash: bool) -> int:
    """Bytes of the largest layer's keys and values."""
    return max((_layer_bytes(model, layer, settings, flash=flash) for layer in model.cached), default=0)


def check_cache_type(model: Hyperparameters, settings: LoadSettings) -> None:
    """Refuse a quantized cache that llama.cpp would refuse (llama_init_from_model).

    Raises:
        InputError: the block of the type does not divide a head.
    """
    block = settings.cache_type.block
    for layer in model.cached:
        if layer.key % block or (layer.value % block and not model.latent):
            raise InputError(
                f"a {settings.kv} KV cache does not go with heads of {layer.key} elements", hint="use --kv f16"
            )


def cells(model: Hyperparameters, layer: Layer, settings: LoadSettings) -> int:
    """Tokens that one stream's cache of that layer holds."""
    return settings.window_cells(model.window) if layer.window else settings.cells


def _layer_bytes(model: Hyperparameters, layer: Layer, settings: LoadSettings, *, flash: bool) -> int:
    rows = cells(model, layer, settings) * settings.streams
    kind = settings.cache_type
    size = _aligned(kind.row_bytes(layer.key_width) * rows)
    if not model.latent:
        # Without flash attention values lie transposed, and every layer takes as much as the widest.
        width = layer.value_width if flash else max(one.value_width for one in model.cached)
        size += _aligned(kind.row_bytes(width) * rows)
    return size


def _aligned(size: int) -> int:
    return (size + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
