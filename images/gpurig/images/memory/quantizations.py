"""How large a model would be in another quantization: llama-quantize's mixes, tensor by tensor (llama-quant.cpp)."""

from __future__ import annotations

import re

from gpurig.common.ggml_types import GGML_TYPES, TYPE_NUMBERS
from gpurig.common.gguf import Tensor
from gpurig.images.memory.forecast import Model

# From the best to the smallest; the quality falls off a cliff below (FACTS: KLD of Llama 3 8B, llama.cpp#6936).
LADDER = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K")
_BASE = {
    "F16": "f16", "Q8_0": "q8_0", "Q6_K": "q6_K", "Q5_K_M": "q5_K", "Q4_K_M": "q4_K", "IQ4_XS": "iq4_xs",
    "Q3_K_M": "q3_K", "Q2_K": "q2_K",
}  # fmt: skip
# What is taken where a row is no multiple of the type's block.
_FALLBACK = {"iq4_xs": "iq4_nl", "q2_K": "q4_0", "q3_K": "q4_0", "q4_K": "q5_0", "q5_K": "q5_1", "q6_K": "q8_0"}
_UNTOUCHED = (
    "ffn_gate_inp.weight", "altup", "laurel", "per_layer_model_proj", "ssm_conv1d", "shortconv.conv.weight",
    "attn_rel_b.weight", "time_mix_first.weight", "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight",
    "time_mix_v0.weight", "time_mix_v1.weight", "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight",
    "time_mix_a2.weight", "time_mix_g1.weight", "time_mix_g2.weight", "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
)  # fmt: skip
_LAYER = re.compile(r"blk\.(\d+)\.")


def tensor_kinds(model: Model, quantization: str) -> dict[str, int]:
    """The ggml_type of every tensor in that quantization (one of LADDER), made without an importance matrix."""
    return _Mix(model, quantization).kinds()


class _Mix:
    def __init__(self, model: Model, quantization: str) -> None:
        self._tensors = model.gguf.tensors
        self._name = quantization
        self._eight = model.sizes.experts == 8
        self._experts = model.sizes.experts > 1
        first = model.sizes.layers[0]
        # Of the first layer, as llama.cpp does it; that one is recurrent in some hybrids.
        self._grouped = bool(first.kv_heads) and first.heads // first.kv_heads >= 4
        self._tied = all(tensor.name != "output.weight" for tensor in self._tensors)
        self._values = sum(_is_value(tensor.name) for tensor in self._tensors)
        self._layers = len(model.sizes.layers)
        self._seen_values = self._seen_down = 0

    def kinds(self) -> dict[str, int]:
        return {tensor.name: TYPE_NUMBERS[self._kind(tensor)] for tensor in self._tensors if self._touched(tensor)}

    @staticmethod
    def _touched(tensor: Tensor) -> bool:
        name = tensor.name
        if len(tensor.shape) < 2 or not name.endswith("weight") or "_norm.weight" in name:
            return False
        if name in {"position_embd.weight", "token_types.weight"} or any(part in name for part in _UNTOUCHED):
            return False
        # Integers are tables, no weights.
        return tensor.kind not in {24, 25, 26, 27}

    def _kind(self, tensor: Tensor) -> str:
        kind = self._wanted(tensor.name, tensor.shape[0])
        if tensor.shape[0] % _block(kind):
            kind = _FALLBACK.get(kind, kind)
        return "f16" if tensor.shape[0] % _block(kind) else kind

    def _wanted(self, name: str, width: int) -> str:
        base = _BASE[self._name]
        embedding = name in {"token_embd.weight", "per_layer_token_embd.weight"}
        if base == "f16" or (embedding and not self._tied):
            return base
        if name == "output.weight" or embedding:
            return "q8_0" if base == "q8_0" or width % _block(base) else "q6_K"
        if _is_value(name):
            kind = self._value(base, self._seen_values)
            self._seen_values += 1
            return "q8_0" if self._eight else kind
        if "ffn_down" in name:
            layer = self._seen_down
            self._seen_down += 1
            found = _LAYER.match(name)
            return self._down(base, int(found[1]) if self._experts and found else layer)
        if "attn_output.weight" in name:
            return self._output(base)
        return "q8_0" if self._eight and "attn_k.weight" in name else base

    def _value(self, base: str, index: int) -> str:
        if self._name == "Q2_K":
            return "q4_K" if self._grouped else "q3_K"
        if self._name == "Q3_K_M":
            return "q5_K" if index < 2 else "q4_K"
        if self._name == "IQ4_XS" and self._grouped:
            return "q5_K"
        if self._name in {"Q4_K_M", "Q5_K_M"} and _more_bits(index, self._values):
            return "q6_K"
        return base

    def _down(self, base: str, layer: int) -> str:
        if self._name == "Q2_K":
            return "q3_K"
        if self._name == "Q3_K_M":
            return "q5_K" if layer < self._layers // 16 else "q4_K"
        if self._name == "IQ4_XS" and layer < self._layers // 8:
            return "q5_K"
        if self._name in {"Q4_K_M", "Q5_K_M"} and _more_bits(layer, self._layers):
            return "q6_K"
        return base

    def _output(self, base: str) -> str:
        if self._eight:
            return "q5_K" if self._name in {"Q2_K", "Q3_K_M", "Q4_K_M", "IQ4_XS"} else base
        return {"Q2_K": "q3_K", "Q3_K_M": "q4_K"}.get(self._name, base)


def _is_value(name: str) -> bool:
    return any(part in name for part in ("attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight"))


def _more_bits(layer: int, layers: int) -> bool:
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _block(kind: str) -> int:
    return GGML_TYPES[TYPE_NUMBERS[kind]].block
