"""The forecast: a model and the wish how to load it go in, bytes by device and by purpose come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpurig.common.errors import InputError
from gpurig.common.gguf import Gguf
from gpurig.images.memory.architectures import MEASURED
from gpurig.images.memory.cache import cache_by_device
from gpurig.images.memory.compute import compute_buffers, uses_flash_attention
from gpurig.images.memory.hyperparameters import Hyperparameters, read_hyperparameters
from gpurig.images.memory.placement import HOST, place
from gpurig.images.memory.settings import LoadSettings
from gpurig.images.memory.weights import adapter_by_device, largest_on_host, weights_by_device

_F32 = 4


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        weights: of the model and its adapters.
        cache: keys, values and recurrent states.
        compute: temporary tensors.
        output: logits that are handed out; always on the CPU.
    """

    weights: int = 0
    cache: int = 0
    compute: int = 0
    output: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.compute + self.output


@dataclass(frozen=True)
class Forecast:
    """What a model would take, without what a driver takes for itself (cards.py).

    Attributes:
        settings: how it would be loaded, as asked for.
        gpus: by GPU; a card without layers has nothing.
        host: on the CPU.
        flash_attention: it would be used.
        gpu_layers: layers on GPUs, the output layer counting as one.
        layers: how many there are, likewise.
        measured: the architecture is one that was held against llama.cpp.
    """

    settings: LoadSettings
    gpus: tuple[Memory, ...]
    host: Memory
    flash_attention: bool
    gpu_layers: int
    layers: int
    measured: bool

    @property
    def gpu_bytes(self) -> int:
        """On the fullest GPU."""
        return max((gpu.total for gpu in self.gpus), default=0)

    @property
    def total_bytes(self) -> int:
        """On all devices together."""
        return sum(gpu.total for gpu in self.gpus) + self.host.total


@dataclass(frozen=True)
class Model:
    """A file's header, read for forecasts.

    Attributes:
        gguf: the header; of a split model with the tensors of all parts.
        sizes: what it says of the model.
        adapters: the headers of LoRA adapters that are loaded with it.
    """

    gguf: Gguf
    sizes: Hyperparameters
    adapters: tuple[Gguf, ...] = ()


def model_of(gguf: Gguf, adapters: Sequence[Gguf] = ()) -> Model:
    """Read what forecasts need.

    Raises:
        InputError: the header says nonsense, or is none of a language model; an adapter is none, or for another model.
    """
    for adapter in adapters:
        if adapter.metadata.get("general.type") != "adapter" or adapter.metadata.get("adapter.type") != "lora":
            raise InputError(
                f"{adapter.source} is no LoRA adapter", hint="--adapter takes what convert_lora_to_gguf.py made"
            )
        if adapter.architecture != gguf.architecture:
            raise InputError(
                f"the adapter {adapter.source} is for {adapter.architecture} models, this is {gguf.architecture}",
                hint="an adapter works with the model that it was trained on",
            )
    return Model(gguf, read_hyperparameters(gguf), tuple(adapters))


def forecast(model: Model, settings: LoadSettings) -> Forecast:
    """What the model would take.

    Raises:
        InputError: the settings do not go with the model.
    """
    sizes, tensors, name = model.sizes, model.gguf.tensors, model.gguf.architecture
    placement = place(len(sizes.layers), settings)
    flash = uses_flash_attention(sizes, settings, on_gpu=placement.gpus > 0)
    weights = weights_by_device(tensors, name, placement)
    for adapter in model.adapters:
        for device, size in adapter_by_device(adapter.tensors, name, placement).items():
            weights[device] += size
    cache = cache_by_device(sizes, settings, placement, flash=flash)
    borrowed = largest_on_host(tensors, name, placement)
    compute = compute_buffers(sizes, settings, placement, flash=flash, borrowed=borrowed)
    # One row of logits a sequence (llama-context.cpp, output_reserve).
    output = sizes.vocabulary * settings.parallel * _F32
    # A card without layers of its own still computes, with borrowed matrices.
    used = set(placement.devices) if settings.gpus > 1 else {0}
    last = placement.output if placement.output != HOST else 0
    return Forecast(
        settings=settings,
        gpus=tuple(
            Memory(weights[gpu], cache[gpu], compute.gpu if gpu == last else compute.others)
            if gpu in used
            else Memory()
            for gpu in range(settings.gpus)
        ),
        host=Memory(weights[HOST], cache[HOST], compute.host, output),
        flash_attention=flash,
        gpu_layers=sum(device != HOST for device in placement.devices),
        layers=len(placement.devices),
        measured=name in MEASURED,
    )


def retyped(model: Model, kinds: dict[str, int]) -> Model:
    """The same model with other tensor types; a file that does not exist yet.

    Args:
        model: the model.
        kinds: ggml_type by tensor.
    """
    tensors = tuple(replace(tensor, kind=kinds.get(tensor.name, tensor.kind)) for tensor in model.gguf.tensors)
    return replace(model, gguf=replace(model.gguf, tensors=tensors))
