"""What temporary tensors take: the most that is alive at one time in the graph of the largest batch.

llama.cpp plans that graph once, and reuses the place of a tensor when nobody needs it any more (ggml-alloc.c). So the
buffer is as large as the most demanding moment: attention of a layer, its feed-forward block, its recurrence, or the
logits of all tokens at the end. The terms are those of llama-graph.cpp; what the reuse leaves unused between live
tensors depends on their order and is an allowance here, never less than what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpurig.images.memory.cache import cells, largest_layer
from gpurig.images.memory.hyperparameters import Hyperparameters, Layer
from gpurig.images.memory.placement import HOST, Placement
from gpurig.images.memory.settings import LoadSettings
from gpurig.images.memory.weights import Borrowed

_F16, _F32, _I64 = 2, 4, 8
# From so many tokens on a GPU computes with matrices that lie in the CPU's memory (ggml-cuda.cu, offload_op).
_BORROWS_FROM = 32
# Head sizes for which CUDA has flash attention (ggml-cuda/fattn.cu): keys and values alike, or keys to values.
_SAME_HEADS = frozenset({40, 64, 72, 80, 96, 112, 128, 256, 512})
_OTHER_HEADS = {192: 128, 320: 256, 576: 512}
_NO_FLASH = frozenset({"grok"})
# Inputs of a few bytes a token, and what alignment loses.
_SMALL = 2**20
_HOLE = 96 * 2**20


@dataclass(frozen=True)
class ComputeBuffers:
    """Bytes of temporary tensors.

    Attributes:
        gpu: on the GPU with the output layer.
        others: on each other GPU that has layers.
        host: on the CPU.
    """

    gpu: int
    others: int
    host: int


def uses_flash_attention(model: Hyperparameters, settings: LoadSettings, *, on_gpu: bool) -> bool:
    """Whether llama.cpp would use flash attention: "auto" means where the device has a kernel for the head sizes."""
    if settings.flash_attention == "off" or model.architecture in _NO_FLASH:
        return False
    if settings.flash_attention == "on" or settings.cache_type.quantized:
        return True
    return not on_gpu or all(_has_kernel(layer) for layer in model.cached)


def _has_kernel(layer: Layer) -> bool:
    if layer.key in _OTHER_HEADS:
        return layer.value == _OTHER_HEADS[layer.key] and layer.heads >= 2 * layer.kv_heads
    return layer.key in _SAME_HEADS and layer.value == layer.key


def compute_buffers(
    model: Hyperparameters, settings: LoadSettings, placement: Placement, *, flash: bool, borrowed: Borrowed
) -> ComputeBuffers:
    """Bytes of temporary tensors by kind of device.

    Args:
        model: its sizes.
        settings: how it is loaded.
        placement: where its layers lie.
        flash: flash attention is used.
        borrowed: the largest matrices on the CPU, which a GPU borrows for a big batch.
    """
    graph = _Graph(model, settings, flash=flash)
    if not placement.gpus:
        return ComputeBuffers(0, 0, graph.peak(copied=False) + graph.residual + _SMALL)
    layers = max(graph.attention(copied=True), graph.others()) + _SMALL
    gpu = max(layers, graph.end(copied=True) + _SMALL)
    if settings.tokens >= _BORROWS_FROM and placement.host_layers:
        gpu = max(gpu + 2 * graph.residual, graph.with_borrowed(borrowed) + _SMALL)
        layers = max(layers, graph.with_borrowed(borrowed) + _SMALL)
    if placement.output == HOST:
        gpu = max(gpu, graph.end(copied=True) + borrowed.output + _SMALL)
    host = graph.inputs + graph.residual + _SMALL
    if placement.gpus > 1 and settings.gpu_layers < 0:
        # Several GPUs work on several batches at a time, each with its inputs, and with what comes from the one before.
        more = 3 * graph.masks + 12 * graph.residual
        received = 4 * (graph.residual + graph.channels)
        gpu += more + received
        layers += more + (received if placement.gpus > 2 else 0)
        host = 4 * graph.masks + 5 * graph.residual + _SMALL
    if placement.host_layers:
        host += graph.host_rest()
    return ComputeBuffers(gpu, layers, host)


class _Graph:
    def __init__(self, model: Hyperparameters, settings: LoadSettings, *, flash: bool) -> None:
        self._model = model
        self._settings = settings
        self._flash = flash
        self._tokens = settings.tokens
        self.residual = self._f32(model.width)
        self.logits = self._f32(model.vocabulary)
        self._mask = 0
        self.masks = self._masks()
        self.inputs = self.masks + self.residual
        self.channels = self._f32(model.channels) if model.state else 0

    def _f32(self, width: int) -> int:
        return width * self._tokens * _F32

    def _masks(self) -> int:
        """Bytes of the masks (who sees whom) and of the places where transposed values go, of all caches."""
        total = 0
        for window in (False, True):
            layers = [layer for layer in self._model.cached if layer.window is window]
            if layers:
                mask = cells(self._model, layers[0], self._settings) * self._tokens * (_F16 if self._flash else _F32)
                self._mask = max(self._mask, mask)
                total += mask
                total += 0 if self._flash else max(one.value_width for one in layers) * self._tokens * _I64
        return total

    def peak(self, *, copied: bool) -> int:
        """The most that is alive at one time.

        Args:
            copied: on a GPU: flash attention makes an f16 copy of a quantized cache.
        """
        return max(self.attention(copied=copied), self.others(), self.end(copied=copied))

    def attention(self, *, copied: bool) -> int:
        """The most that is alive in a layer's attention."""
        return self.masks + max((self._attention(layer, copied=copied) for layer in self._model.cached), default=0)

    def others(self) -> int:
        """The most that is alive in a layer's feed-forward block, or its recurrence."""
        return self.masks + max(self._feed_forward(), self._recurrence())

    def with_borrowed(self, borrowed: Borrowed) -> int:
        """The most that is alive in a layer whose matrices, keys and values come from the CPU.

        Those of the next layer are fetched while this one's are still there.
        """
        layer = largest_layer(self._model, self._settings, flash=self._flash)
        attention = self.attention(copied=True) + 3 * layer // 2 + 3 * borrowed.attention
        used = max(1, self._model.experts_used)
        inner = self._f32(max(self._model.inner, self._model.expert_inner * used, self._model.channels))
        down = inner + used * self.residual + borrowed.down
        wide = 2 * inner + borrowed.other * (2 if self._model.channels else 1)
        block = self.masks + 7 * self.residual + max(wide, down) + 2 * borrowed.attention
        return max(attention, block + (3 * layer // 2 if self._model.experts_used else 0))

    def end(self, *, copied: bool) -> int:
        """What is alive when the logits are made, and the holes below them.

        A hole is what a tensor of the last layer left that is too small for the logits, while something that is still
        needed lies above it. Measured: three residuals and the mask; with a shared expert the answers of the others;
        with a quantized cache all masks, and with experts its copy; beside a recurrence up to 96 MiB of a feed-forward
        block.
        """
        sizes = self._model
        copy = max((self._copy(layer) for layer in sizes.cached), default=0) if copied and self._flash else 0
        masks = self.masks if copy else self._mask
        mask = masks if masks < self.logits else 0
        holes = 5 * self.residual + mask
        if sizes.latent:
            holes += self._f32(sizes.width * sizes.experts_used)
        if sizes.experts_used and copy < self.logits:
            holes += copy
        if not copied:
            holes += 2 * self.residual
        if sizes.state and not sizes.gated:
            block = min(3 * self._f32(sizes.inner), _HOLE) - 2 * self.residual
            holes += max(0, block - (0 if copy else mask))
        return self.logits + holes

    def _copy(self, layer: Layer) -> int:
        """Bytes of the f16 copy of a quantized cache (fattn-common.cuh)."""
        if self._settings.kv == "f16":
            return 0
        width = layer.key_width + (0 if self._model.latent else layer.value_width)
        copy = cells(self._model, layer, self._settings) * self._settings.streams * width * _F16
        return copy + self._f32(layer.heads * layer.value)

    def _attention(self, layer: Layer, *, copied: bool) -> int:
        query, answer = self._f32(layer.heads * layer.key), self._f32(layer.heads * layer.value)
        alive = 2 * self.residual + query + answer
        if self._model.latent or self._model.gated:
            # Queries before and after they are brought into the latent space; or a gate beside them.
            alive += query + answer
        if self._flash:
            return alive + (self._copy(layer) if copied else 0)
        scores = cells(self._model, layer, self._settings) * self._f32(layer.heads)
        return alive + answer + scores

    def _feed_forward(self) -> int:
        dense = 3 * self._f32(self._model.inner)
        used = self._model.experts_used
        inner = self._f32(self._model.expert_inner * used)
        mixture = max(3 * inner, inner + self._f32(self._model.width * used)) + 2 * self._f32(self._model.experts)
        return 3 * self.residual + max(dense, mixture if used else 0)

    def _recurrence(self) -> int:
        if not self._model.channels:
            return 0
        state = (self._model.state + self._model.convolution) * self._settings.parallel * _F32
        return 3 * self.residual + 5 * self._f32(self._model.channels) + 2 * state

    def host_rest(self) -> int:
        """What the CPU keeps of layers whose matrices a GPU borrows."""
        heads = max((self._f32(layer.heads * layer.key) for layer in self._model.cached), default=0)
        rest = 2 * self.residual + heads + self._f32(self._model.channels)
        return rest if self._flash else max(rest, self.attention(copied=False) - self.inputs)
