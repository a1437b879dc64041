"""The sizes of a model that memory depends on, read from its header as llama.cpp reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpurig.common.errors import InputError
from gpurig.common.gguf import Array, Gguf
from gpurig.common.gguf_file_types import trained_context
from gpurig.images.memory.architectures import (
    INTERVAL,
    KV_HEADS_TELL,
    NO_CACHE,
    RECURRENT,
    SHARED_FROM_START,
    WINDOWS,
    Window,
)

_MOST_LAYERS = 512
_LARGEST = 2**31


@dataclass(frozen=True)
class Layer:
    """One layer's attention.

    Attributes:
        heads, kv_heads: query heads, and those of keys and values; both 0 without attention.
        key, value: elements of one head's key and value in the cache.
        window: the layer attends to a sliding window only.
        cached: it has keys and values in the KV cache.
        recurrent: it has a state instead of, or (falcon-h1) beside, a cache.
    """

    heads: int
    kv_heads: int
    key: int
    value: int
    window: bool = False
    cached: bool = True
    recurrent: bool = False

    @property
    def key_width(self) -> int:
        """Elements of one token's keys."""
        return self.key * self.kv_heads

    @property
    def value_width(self) -> int:
        """Elements of one token's values."""
        return self.value * self.kv_heads


@dataclass(frozen=True)
class Hyperparameters:
    """A model's sizes.

    Attributes:
        width: elements of a token's embedding.
        inner: elements between the two halves of the widest dense feed-forward block; 0 without one.
        experts, experts_used, expert_inner: of the mixture; 0 without one.
        window: tokens that a layer with a sliding window sees; 0 without such layers.
        latent: the cache holds one latent vector in place of keys and values (MLA).
        gated: attention computes a gate beside its queries.
        convolution, state: elements of one sequence's recurrent state in one layer: what a convolution needs of the
            last tokens, and the state proper.
        channels: elements of the widest tensor of one token in a recurrent layer.
        context: tokens that the model was trained for; 0 where the file does not say.
    """

    architecture: str
    layers: tuple[Layer, ...]
    width: int
    vocabulary: int
    inner: int
    experts: int
    experts_used: int
    expert_inner: int
    window: int
    latent: bool
    gated: bool
    convolution: int
    state: int
    channels: int
    context: int

    @property
    def cached(self) -> tuple[Layer, ...]:
        """The layers with keys and values."""
        return tuple(layer for layer in self.layers if layer.cached)

    @property
    def recurrent(self) -> int:
        """How many layers have a recurrent state."""
        return sum(layer.recurrent for layer in self.layers)


def read_hyperparameters(gguf: Gguf) -> Hyperparameters:
    """The model's sizes.

    Raises:
        InputError: a size is missing, or cannot be.
    """
    return _Reader(gguf).read()


class _Reader:
    def __init__(self, gguf: Gguf) -> None:
        self._gguf = gguf
        self._name = gguf.architecture
        self._shapes = {tensor.name: tensor.shape for tensor in gguf.tensors}
        self._count = self._number("block_count", required=True)
        if self._count > _MOST_LAYERS:
            raise self._wrong("block_count", self._count)

    def read(self) -> Hyperparameters:
        width = self._number("embedding_length", required=True)
        window = self._window()
        layers = self._layers(width, window)
        state = self._number("ssm.state_size")
        channels = self._number("ssm.inner_size") + 2 * self._number("ssm.group_count") * state
        return Hyperparameters(
            architecture=self._name,
            layers=layers,
            width=width,
            vocabulary=self._vocabulary(),
            inner=max(self._each("feed_forward_length"), default=0),
            experts=self._number("expert_count"),
            experts_used=max(self._each("expert_used_count"), default=0),
            expert_inner=self._expert_inner(),
            window=window.tokens if any(layer.window for layer in layers) else 0,
            latent=self._latent(),
            gated=self._gated(layers),
            convolution=self._convolution(width, channels),
            state=self._state(width, state, layers),
            channels=self._channels(),
            context=trained_context(self._gguf) or 0,
        )

    def _layers(self, width: int, window: Window) -> tuple[Layer, ...]:
        heads = self._each("attention.head_count")
        kv_heads = self._each("attention.head_count_kv", heads)
        recurrent = self._recurrent(kv_heads)
        first = heads[0] if heads and heads[0] else max(heads, default=0)
        size = width // first if first else 0
        key = self._number("attention.key_length", size)
        value = self._number("attention.value_length", size)
        windowed = window.layers(self._count, self._gguf.of_architecture("attention.sliding_window_pattern"))
        if window.every_attention:
            windowed = tuple(not one for one in recurrent)
        shared = SHARED_FROM_START.get(self._name, self._count)
        shared -= self._number("attention.shared_kv_layers")
        return tuple(
            Layer(
                heads=heads[index],
                kv_heads=kv_heads[index],
                key=self._number("attention.key_length_swa", key) if windowed[index] else key,
                value=self._number("attention.value_length_swa", value) if windowed[index] else value,
                window=windowed[index],
                cached=self._cached(index, kv_heads[index], recurrent[index]) and index < shared,
                recurrent=recurrent[index],
            )
            for index in range(self._count)
        )

    def _cached(self, index: int, kv_heads: int, recurrent: bool) -> bool:  # noqa: FBT001 - one layer's facts
        if self._name in NO_CACHE or self._name in RECURRENT:
            return False
        if self._name == "falcon-h1":
            return True
        if self._name.startswith("nemotron_h"):
            return kv_heads > 0 and not self._each("feed_forward_length")[index]
        return not recurrent and kv_heads > 0

    def _recurrent(self, kv_heads: Sequence[int]) -> tuple[bool, ...]:
        if self._name in RECURRENT or self._name == "falcon-h1":
            return (True,) * self._count
        if self._name in INTERVAL:
            told = self._gguf.of_architecture("attention.recurrent_layers")
            if isinstance(told, Array) and len(told) >= self._count:
                return tuple(bool(one) for one in told[: self._count])
            interval = max(1, self._number("full_attention_interval", INTERVAL[self._name]))
            return tuple((index + 1) % interval != 0 for index in range(self._count))
        if self._name.startswith("nemotron_h"):
            inner = self._each("feed_forward_length")
            return tuple(not kv and not width for kv, width in zip(kv_heads, inner, strict=True))
        return tuple(self._name in KV_HEADS_TELL and not kv for kv in kv_heads)

    def _window(self) -> Window:
        window = WINDOWS.get(self._name)
        if window is None or (window.only_layers and self._count not in window.only_layers):
            return Window()
        tokens = self._number("attention.sliding_window", window.tokens)
        # llama4 has its own size, unless the file switches the window off.
        return window.of(tokens if not (tokens and window.fixed) else window.tokens)

    def _latent(self) -> bool:
        return bool(self._number("attention.key_length_mla") and self._number("attention.value_length_mla"))

    def _gated(self, layers: Sequence[Layer]) -> bool:
        return any(
            self._shapes.get(f"blk.{index}.attn_q.weight", (0, 0))[-1] > layer.heads * layer.key
            for index, layer in enumerate(layers)
            if layer.cached and not self._latent()
        )

    def _expert_inner(self) -> int:
        inner = max(self._each("expert_feed_forward_length"), default=0)
        for name in ("ffn_up_exps", "ffn_gate_up_exps"):
            for index in range(self._count):
                shape = self._shapes.get(f"blk.{index}.{name}.weight")
                if shape:
                    return max(inner, shape[1])
        return inner

    def _convolution(self, width: int, channels: int) -> int:
        # llama-hparams.cpp, n_embd_r.
        if self._number("wkv.head_size"):
            return self._number("token_shift_count", 2) * width
        if self._number("shortconv.l_cache"):
            return width * (self._number("shortconv.l_cache") - 1)
        kernel = self._number("ssm.conv_kernel")
        if self._number("kda.head_dim"):
            heads = max(self._each("attention.head_count"), default=0)
            return 3 * (kernel - 1 if kernel else 3) * heads * self._number("kda.head_dim")
        return (kernel - 1 if kernel else 0) * channels

    def _state(self, width: int, state: int, layers: Sequence[Layer]) -> int:
        # llama-hparams.cpp, n_embd_s.
        if self._number("wkv.head_size"):
            return width * self._number("wkv.head_size")
        heads = max((layer.heads for layer in layers), default=0)
        if self._number("kda.head_dim"):
            return self._number("kda.head_dim") ** 2 * heads
        if self._name == "minimax-01":
            return layers[0].key ** 2 * heads
        return state * self._number("ssm.inner_size")

    def _channels(self) -> int:
        names = ("ssm_in.weight", "attn_qkv.weight", "shortconv.in_proj.weight", "ssm_conv1d.weight")
        recurrent = any(name.split(".")[2:3] == ["ssm_conv1d"] or ".shortconv." in name for name in self._shapes)
        widest = [
            shape[1]
            for name, shape in self._shapes.items()
            if len(shape) > 1 and name.partition(".")[2].partition(".")[2] in names
        ]
        return max(widest, default=0) if recurrent else 0

    def _vocabulary(self) -> int:
        for name in ("output.weight", "token_embd.weight"):
            shape = self._shapes.get(name)
            if shape and len(shape) == 2:
                return shape[1]
        tokens = self._gguf.metadata.get("tokenizer.ggml.tokens")
        return len(tokens) if isinstance(tokens, Array) else self._number("vocab_size", required=True)

    def _number(self, key: str, default: int = 0, *, required: bool = False) -> int:
        value = self._gguf.of_architecture(key)
        if value is None and not required:
            return default
        if isinstance(value, Array):
            value = max((one for one in value if isinstance(one, int)), default=0) if len(value) <= _MOST_LAYERS else -1
        if not isinstance(value, int) or not 0 <= value < _LARGEST or (required and not value):
            raise self._wrong(key, value)
        return int(value)

    def _each(self, key: str, default: Sequence[int] = ()) -> tuple[int, ...]:
        """A size by layer: the file has one for all, or an array."""
        value = self._gguf.of_architecture(key)
        if value is None:
            return tuple(default) or (0,) * self._count
        if not isinstance(value, Array):
            return (self._number(key),) * self._count
        if not self._count <= len(value) <= _MOST_LAYERS:
            raise self._wrong(key, f"an array of {len(value)}")
        values = value[: self._count]
        if not all(isinstance(one, int) and 0 <= one < _LARGEST for one in values):
            raise self._wrong(key, "an array of other values")
        return tuple(int(one) for one in values)

    def _wrong(self, key: str, value: Any) -> InputError:
        return InputError(
            f"{self._gguf.source} says {self._name}.{key} = {value!r}, which no model can have",
            hint="the file is damaged, or no language model that llama.cpp runs",
        )
