"""Which layer lies on which device: llama.cpp's load_tensors (llama-model.cpp)."""

from __future__ import annotations

from dataclasses import dataclass

from gpurig.images.memory.settings import LoadSettings

HOST = -1


@dataclass(frozen=True)
class Placement:
    """Where the layers lie.

    Attributes:
        devices: of each layer, and of the output layer behind them: a GPU's number from 0 on, or HOST.
        gpus: how many GPUs there are.
    """

    devices: tuple[int, ...]
    gpus: int

    @property
    def output(self) -> int:
        """Where the output layer lies."""
        return self.devices[-1]

    @property
    def host_layers(self) -> int:
        """How many layers, without the output, are on the CPU."""
        return self.devices[:-1].count(HOST)


def place(layers: int, settings: LoadSettings) -> Placement:
    """Put the last layers on the GPUs, evenly; the input layer always stays on the CPU."""
    wanted = layers + 1 if settings.gpu_layers < 0 else min(settings.gpu_layers, layers + 1)
    wanted = wanted if settings.gpus else 0
    first = layers + 1 - wanted
    devices = [HOST if index < first else (index - first) * settings.gpus // wanted for index in range(layers + 1)]
    return Placement(tuple(devices), settings.gpus)
