"""Where a model's weights go, and what they take there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gpurig.common.errors import InputError
from gpurig.common.ggml_types import GGML_TYPES
from gpurig.common.gguf import Tensor
from gpurig.images.memory.architectures import NO_OUTPUT
from gpurig.images.memory.placement import HOST, Placement

_LAYER = re.compile(r"blk\.(\d{1,4})\.")
# What is looked up, not multiplied: it stays on the CPU (llama-arch.cpp, LLM_TENSOR_LAYER_INPUT).
_INPUT = frozenset({
    "token_embd.weight", "position_embd.weight", "token_types.weight", "per_layer_token_embd.weight",
})  # fmt: skip
# Of no layer by name, and used by the first.
_FIRST = ("token_embd_norm.", "rope_freqs.", "rope_factors_")
# ggml-cuda.cu and common.cuh: every tensor begins at a multiple of 128 bytes, the last row of a quantized matrix is
# filled up to a multiple of 512 elements. On the CPU: ggml-backend.cpp.
_ALIGNMENT = 128
_ROW = 512
_HOST_ALIGNMENT = 32


def weights_by_device(tensors: Sequence[Tensor], architecture: str, placement: Placement) -> dict[int, int]:
    """Bytes of weights by device (HOST, or a GPU's number).

    Raises:
        InputError: a tensor's type is newer than this program.
    """
    sizes = dict.fromkeys((HOST, *range(placement.gpus)), 0)
    for tensor in tensors:
        device = _device(tensor.name, architecture, placement)
        sizes[device] += tensor_bytes(tensor, on_host=device == HOST)
    names = {tensor.name: tensor for tensor in tensors}
    tied = names.get("token_embd.weight")
    # A model without an output layer turns the embeddings around; on the GPU that needs a copy of them.
    if tied and "output.weight" not in names and architecture not in NO_OUTPUT and placement.output != HOST:
        sizes[placement.output] += tensor_bytes(tied, on_host=False)
    return sizes


def adapter_by_device(tensors: Sequence[Tensor], architecture: str, placement: Placement) -> dict[int, int]:
    """Bytes of a LoRA adapter by device: each of its matrices lies beside the one that it changes (llama-adapter.cpp).

    Raises:
        InputError: a tensor's type is newer than this program.
    """
    sizes = dict.fromkeys((HOST, *range(placement.gpus)), 0)
    for tensor in tensors:
        name = tensor.name.removesuffix(".lora_a").removesuffix(".lora_b")
        if name != tensor.name:
            device = _device(name, architecture, placement)
            sizes[device] += tensor_bytes(tensor, on_host=device == HOST)
    return sizes


@dataclass(frozen=True)
class Borrowed:
    """Bytes of the largest matrix on the CPU of each sort: `down` leads out of a feed-forward block."""

    attention: int = 0
    output: int = 0
    down: int = 0
    other: int = 0


def largest_on_host(tensors: Sequence[Tensor], architecture: str, placement: Placement) -> Borrowed:
    """The matrices that a GPU borrows from the CPU for a big batch; 0 where all layers are its own."""
    sizes = {"attention": 0, "output": 0, "down": 0, "other": 0}
    for tensor in tensors:
        if len(tensor.shape) < 2 or _device(tensor.name, architecture, placement) != HOST:
            continue
        if tensor.name in {"output.weight", "token_embd.weight"}:
            # Embeddings are looked up on the CPU, and borrowed only where they are the output layer too.
            part = "output" if placement.output == HOST else ""
        elif tensor.name in _INPUT:
            part = ""
        else:
            part = "attention" if ".attn_" in tensor.name else "down" if ".ffn_down" in tensor.name else "other"
        if part:
            sizes[part] = max(sizes[part], tensor_bytes(tensor, on_host=False))
    return Borrowed(**sizes)


def tensor_bytes(tensor: Tensor, *, on_host: bool, kind: int | None = None) -> int:
    """What a tensor takes in a device's buffer.

    Args:
        tensor: the tensor.
        on_host: the buffer is the CPU's.
        kind: another ggml_type than the file's.

    Raises:
        InputError: its type is newer than this program.
    """
    number = tensor.kind if kind is None else kind
    found = GGML_TYPES.get(number)
    if found is None:
        raise InputError(
            f'tensor "{tensor.name}" has the type {number}, which is newer than this gpurig', hint="upgrade gpurig"
        )
    size = found.row_bytes(tensor.elements)
    rest = tensor.shape[0] % _ROW
    if not on_host and found.quantized and rest:
        size += found.row_bytes(_ROW - rest)
    step = _HOST_ALIGNMENT if on_host else _ALIGNMENT
    return (size + step - 1) // step * step


def _device(name: str, architecture: str, placement: Placement) -> int:
    if name in _INPUT:
        return HOST
    found = _LAYER.match(name)
    if found:
        # A layer beyond the count is one that llama.cpp does not read either; it counts as the last.
        return placement.devices[min(int(found[1]), len(placement.devices) - 2)]
    if name.startswith(_FIRST) and not (architecture.startswith("lfm2") and name.startswith("token_embd_norm.")):
        return placement.devices[0]
    return placement.output
