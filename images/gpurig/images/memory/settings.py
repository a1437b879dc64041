"""How a model would be loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from gpurig.common.errors import InputError
from gpurig.common.ggml_types import GGML_TYPES, TYPE_NUMBERS, GgmlType

FlashAttention = Literal["auto", "on", "off"]
KV_TYPES = ("f16", "q8_0", "q4_0", "bf16", "f32", "q4_1", "q5_0", "q5_1", "iq4_nl")
# llama-cparams.h and llama-context.cpp.
MOST_SEQUENCES = 256
CONTEXT_STEP = 256
_MOST_CONTEXT = 2**27


@dataclass(frozen=True)
class LoadSettings:
    """How a model would be loaded; the defaults are those of gpurig's jobs.

    Attributes:
        context: tokens of all sequences together.
        parallel: sequences at a time.
        kv: type of the KV cache, one of KV_TYPES.
        batch: tokens that are computed at a time (llama.cpp's n_ubatch).
        unified: one cache for all sequences, each of which may then use all of it.
        swa_full: layers with a sliding window get a cache of the whole context, as llama.cpp's library does it unless
            it is told otherwise; llama-server tells it otherwise.
        gpu_layers: layers on the GPU, the output layer counting as one; -1 for all.
        gpus: cards that share the layers evenly; 0 for a machine without one.
    """

    context: int = 4096
    parallel: int = 1
    kv: str = "f16"
    batch: int = 512
    flash_attention: FlashAttention = "auto"
    unified: bool = False
    swa_full: bool = True
    gpu_layers: int = -1
    gpus: int = 1

    def __post_init__(self) -> None:
        """Refuse what llama.cpp would refuse.

        Raises:
            InputError: a value is out of range, or two do not go together.
        """
        for name, value, least, most in (
            ("context", self.context, 1, _MOST_CONTEXT),
            ("parallel", self.parallel, 1, MOST_SEQUENCES),
            ("batch", self.batch, 1, 2**20),
            ("gpus", self.gpus, 0, 16),
        ):
            if not least <= value <= most:
                raise InputError(f"--{name} {value} is out of range", hint=f"between {least} and {most}")
        if self.kv not in KV_TYPES:
            raise InputError(f'--kv "{self.kv}" is no type of KV cache', hint="one of " + ", ".join(KV_TYPES))
        if self.cache_type.quantized and self.flash_attention == "off":
            raise InputError(
                f"a {self.kv} KV cache needs flash attention", hint="leave out --flash-attention off, or use --kv f16"
            )

    @property
    def cache_type(self) -> GgmlType:
        """The KV cache's type."""
        return GGML_TYPES[TYPE_NUMBERS[self.kv]]

    @property
    def streams(self) -> int:
        """Caches beside one another (llama-kv-cache.cpp)."""
        return 1 if self.unified else self.parallel

    @property
    def cells(self) -> int:
        """Tokens that one stream's cache holds: the context is shared out and rounded up (llama-context.cpp)."""
        whole = _padded(self.context, CONTEXT_STEP)
        return whole if self.unified else _padded(max(1, whole // self.parallel), CONTEXT_STEP)

    @property
    def tokens(self) -> int:
        """Tokens of the largest batch: a multiple of the sequences (llama-context.cpp, graph_reserve)."""
        most = min(self.batch, self.context, self.cells * self.streams)
        return _padded(most, self.parallel)

    def window_cells(self, window: int) -> int:
        """As `cells`, for layers that see `window` tokens (llama-kv-cache-iswa.cpp)."""
        if self.swa_full:
            return self.cells
        seen = window * (self.parallel if self.unified else 1) + min(self.batch, self.context)
        return _padded(min(self.cells, seen), CONTEXT_STEP)

    def with_context(self, context: int) -> LoadSettings:
        """The same with another context."""
        return replace(self, context=context)

    def with_layers(self, gpu_layers: int) -> LoadSettings:
        """The same with so many layers on the GPU."""
        return replace(self, gpu_layers=gpu_layers)


def _padded(value: int, step: int) -> int:
    return (value + step - 1) // step * step
