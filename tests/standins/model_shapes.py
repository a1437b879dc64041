"""Models of real sizes without their weights: a GGUF header, and a hole where gigabytes of tensors would be.

The shapes are those of published models. llama.cpp reads such a file as any other; with `no_alloc` it never looks
into the hole, so every figure it names is the figure of the real model.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ALIGNMENT = 32
# ggml_type, elements and bytes of a block, by the names of quantizations.
TYPES = {
    "F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q5_0": (6, 32, 22), "Q8_0": (8, 32, 34),
    "Q3_K": (11, 256, 110), "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210),
    "MXFP4": (39, 32, 17),
}  # fmt: skip
FILE_TYPES = {"F16": 1, "Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18, "MXFP4": 38}

Dimensions = tuple[int, ...]


@dataclass(frozen=True)
class Shape:
    """A model's sizes.

    Attributes:
        metadata: without the architecture's prefix.
        tensors: name and dimensions, the fastest one first.
    """

    name: str
    architecture: str
    metadata: Mapping[str, Any]
    tensors: Sequence[tuple[str, Dimensions]]
    vocabulary: int
    top: Mapping[str, Any] = field(default_factory=dict)


def type_in(quantization: str, name: str, shape: Dimensions, layers: int) -> str:
    """The type of a tensor in a file of that quantization, as llama-quantize would choose it, roughly."""
    small = "norm" in name or name.endswith((".bias", "ffn_gate_inp.weight", ".ssm_a", ".ssm_d", "conv1d.weight"))
    if len(shape) == 1 or small or "shortconv.conv." in name:
        return "F32"
    if quantization == "MXFP4":
        return "MXFP4" if "_exps." in name else "Q8_0"
    if quantization in {"F16", "Q8_0", "Q4_0", "Q6_K"}:
        wanted = "Q6_K" if quantization == "Q4_0" and name in {"token_embd.weight", "output.weight"} else quantization
    else:
        wanted = {"Q4_K_M": "Q4_K", "Q5_K_M": "Q5_K"}[quantization]
        layer = int(name.split(".")[1]) if name.startswith("blk.") else 0
        more = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
        if name == "output.weight" or (more and ("attn_v." in name or "ffn_down" in name)):
            wanted = "Q6_K"
    block = TYPES[wanted][1]
    if shape[0] % block:
        return "F16" if shape[0] % 32 else "Q8_0" if wanted in {"Q6_K", "Q5_K"} else "Q5_0"
    return wanted


def write_shape(path: Path, shape: Shape, quantization: str = "Q4_K_M") -> Path:
    """Write the model's header; the file has its full length, and takes no place."""
    layers = int(shape.metadata["block_count"])
    pairs = {
        "general.architecture": shape.architecture,
        "general.name": shape.name,
        "general.file_type": FILE_TYPES[quantization],
        "tokenizer.ggml.model": "no_vocab",
        **{f"{shape.architecture}.{key}": value for key, value in shape.metadata.items()},
        f"{shape.architecture}.vocab_size": shape.vocabulary,
        **shape.top,
    }
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(shape.tensors), len(pairs))
    for key, value in pairs.items():
        header += _text(key) + _value(value)
    offset = 0
    for name, dimensions in shape.tensors:
        kind, block, size = TYPES[type_in(quantization, name, dimensions, layers)]
        header += _text(name) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        header += struct.pack("<IQ", kind, offset)
        elements = 1
        for length in dimensions:
            elements *= length
        offset += -(-elements // block * size // _ALIGNMENT) * _ALIGNMENT
    with path.open("wb") as stream:
        stream.write(header)
        stream.truncate(-(-len(header) // _ALIGNMENT) * _ALIGNMENT + offset)
    return path


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    code, kind = ("?", 7) if isinstance(value[0], bool) else ("i", 5)
    return struct.pack(f"<IIQ{len(value)}{code}", 9, kind, len(value), *value)


def _dense(
    name: str,
    *,
    architecture: str,
    width: int,
    layers: int,
    heads: int,
    kv_heads: int,
    inner: int,
    vocabulary: int,
    head: int | None = None,
    tied: bool = False,
    bias: bool = False,
    head_norms: bool = False,
    post_norms: bool = False,
    context: int = 131072,
    more: Mapping[str, Any] | None = None,
    layer: Callable[[int], Iterable[tuple[str, Dimensions]]] | None = None,
) -> Shape:
    size = head or width // heads
    metadata = _attention(width, layers, heads, kv_heads, size, context) | {"feed_forward_length": inner}
    tensors = _ends(width, vocabulary, tied=tied)
    for index in range(layers):
        block = f"blk.{index}."
        tensors += [(block + "attn_norm.weight", (width,)), (block + "ffn_norm.weight", (width,))]
        tensors += _heads(block, width, heads * size, kv_heads * size, bias=bias)
        if head_norms:
            tensors += [(block + "attn_q_norm.weight", (size,)), (block + "attn_k_norm.weight", (size,))]
        if post_norms:
            tensors += [(block + "post_attention_norm.weight", (width,)), (block + "post_ffw_norm.weight", (width,))]
        if layer is None:
            tensors += _feed_forward(block, width, inner)
        else:
            tensors += [(block + part, dimensions) for part, dimensions in layer(index)]
    return Shape(name, architecture, metadata | dict(more or {}), tensors, vocabulary)


def _attention(  # noqa: PLR0917 - six numbers that every model has
    width: int, layers: int, heads: int, kv_heads: Any, size: int, context: int
) -> dict[str, Any]:
    return {
        "context_length": context,
        "embedding_length": width,
        "block_count": layers,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": size,
        "attention.value_length": size,
        "rope.dimension_count": size,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }


def _ends(width: int, vocabulary: int, *, tied: bool) -> list[tuple[str, Dimensions]]:
    tensors: list[tuple[str, Dimensions]] = [
        ("token_embd.weight", (width, vocabulary)),
        ("output_norm.weight", (width,)),
    ]
    return tensors if tied else [*tensors, ("output.weight", (width, vocabulary))]


def _heads(block: str, width: int, query: int, key: int, *, bias: bool) -> list[tuple[str, Dimensions]]:
    tensors: list[tuple[str, Dimensions]] = [
        (block + "attn_q.weight", (width, query)),
        (block + "attn_k.weight", (width, key)),
        (block + "attn_v.weight", (width, key)),
        (block + "attn_output.weight", (query, width)),
    ]
    if bias:
        tensors += [(block + f"attn_{part}.bias", (size,)) for part, size in (("q", query), ("k", key), ("v", key))]
    return tensors


def _feed_forward(block: str, width: int, inner: int) -> list[tuple[str, Dimensions]]:
    return [
        (block + "ffn_gate.weight", (width, inner)),
        (block + "ffn_up.weight", (width, inner)),
        (block + "ffn_down.weight", (inner, width)),
    ]


def _experts(width: int, inner: int, count: int, *, bias: bool = False) -> list[tuple[str, Dimensions]]:
    tensors: list[tuple[str, Dimensions]] = [
        ("ffn_gate_inp.weight", (width, count)),
        ("ffn_gate_exps.weight", (width, inner, count)),
        ("ffn_up_exps.weight", (width, inner, count)),
        ("ffn_down_exps.weight", (inner, width, count)),
    ]
    if bias:
        tensors += [
            ("ffn_gate_inp.bias", (count,)),
            ("ffn_gate_exps.bias", (inner, count)),
            ("ffn_up_exps.bias", (inner, count)),
            ("ffn_down_exps.bias", (width, count)),
        ]
    return tensors


def _llama(name: str, **sizes: Any) -> Shape:
    return _dense(name, architecture="llama", **sizes)


def _mixtral() -> Shape:
    return _llama(
        "mixtral-8x7b",
        width=4096, layers=32, heads=32, kv_heads=8, inner=14336, vocabulary=32000, context=32768,
        more={"expert_count": 8, "expert_used_count": 2},
        layer=lambda _: _experts(4096, 14336, 8),
    )  # fmt: skip


def _qwen3_moe() -> Shape:
    return _dense(
        "qwen3-30b-a3b",
        architecture="qwen3moe",
        width=2048, layers=48, heads=32, kv_heads=4, head=128, inner=6144, vocabulary=151936,
        head_norms=True,
        more={"expert_count": 128, "expert_used_count": 8, "expert_feed_forward_length": 768},
        layer=lambda _: _experts(2048, 768, 128),
    )  # fmt: skip


def _gpt_oss() -> Shape:
    shape = _dense(
        "gpt-oss-20b",
        architecture="gpt-oss",
        width=2880, layers=24, heads=64, kv_heads=8, head=64, inner=2880, vocabulary=201088,
        bias=True,
        more={
            "expert_count": 32, "expert_used_count": 4, "expert_feed_forward_length": 2880,
            "attention.sliding_window": 128,
        },
        layer=lambda _: [
            *_experts(2880, 2880, 32, bias=True),
            ("post_attention_norm.weight", (2880,)),
            ("attn_sinks.weight", (64,)),
            ("attn_output.bias", (2880,)),
        ],
    )  # fmt: skip
    tensors = [entry for entry in shape.tensors if not entry[0].endswith("ffn_norm.weight")]
    return Shape(shape.name, shape.architecture, shape.metadata, tensors, shape.vocabulary)


def _phi3() -> Shape:
    width, layers, heads, inner, size = 3072, 32, 32, 8192, 96
    metadata = _attention(width, layers, heads, heads, size, 4096) | {"feed_forward_length": inner}
    tensors = _ends(width, 32064, tied=False)
    for index in range(layers):
        block = f"blk.{index}."
        tensors += [
            (block + "attn_norm.weight", (width,)),
            (block + "ffn_norm.weight", (width,)),
            (block + "attn_qkv.weight", (width, 3 * width)),
            (block + "attn_output.weight", (width, width)),
            (block + "ffn_up.weight", (width, 2 * inner)),
            (block + "ffn_down.weight", (inner, width)),
        ]
    return Shape("phi-3-mini", "phi3", metadata, tensors, 32064)


def _starcoder2() -> Shape:
    width, inner = 3072, 12288
    shape = _dense(
        "starcoder2-3b",
        architecture="starcoder2",
        width=width, layers=30, heads=24, kv_heads=2, inner=inner, vocabulary=49152, bias=True, tied=True,
        context=16384,
        more={"attention.layer_norm_epsilon": 1e-5},
        layer=lambda _: [
            ("attn_norm.bias", (width,)), ("ffn_norm.bias", (width,)), ("attn_output.bias", (width,)),
            ("ffn_up.weight", (width, inner)), ("ffn_up.bias", (inner,)),
            ("ffn_down.weight", (inner, width)), ("ffn_down.bias", (width,)),
        ],
    )  # fmt: skip
    return Shape(
        shape.name,
        shape.architecture,
        shape.metadata,
        [*shape.tensors, ("output_norm.bias", (width,))],
        shape.vocabulary,
    )


def _deepseek2() -> Shape:
    width, layers, heads, lora, rope, key, value, vocabulary = 2048, 27, 16, 512, 64, 192, 128, 102400
    metadata = _attention(width, layers, heads, 1, lora + rope, 163840) | {
        "attention.value_length": lora,
        "attention.key_length_mla": key,
        "attention.value_length_mla": value,
        "attention.kv_lora_rank": lora,
        "rope.dimension_count": rope,
        "feed_forward_length": 10944,
        "leading_dense_block_count": 1,
        "expert_count": 64,
        "expert_used_count": 6,
        "expert_shared_count": 2,
        "expert_feed_forward_length": 1408,
        "expert_weights_scale": 1.0,
    }
    tensors = _ends(width, vocabulary, tied=False)
    for index in range(layers):
        block = f"blk.{index}."
        tensors += [
            (block + "attn_norm.weight", (width,)),
            (block + "ffn_norm.weight", (width,)),
            (block + "attn_kv_a_norm.weight", (lora,)),
            (block + "attn_q.weight", (width, heads * key)),
            (block + "attn_kv_a_mqa.weight", (width, lora + rope)),
            (block + "attn_k_b.weight", (key - rope, lora, heads)),
            (block + "attn_v_b.weight", (lora, value, heads)),
            (block + "attn_output.weight", (heads * value, width)),
        ]
        if index < 1:
            tensors += _feed_forward(block, width, 10944)
        else:
            tensors += [(block + part, dimensions) for part, dimensions in _experts(width, 1408, 64)]
            tensors += [
                (block + "ffn_gate_shexp.weight", (width, 2816)),
                (block + "ffn_up_shexp.weight", (width, 2816)),
                (block + "ffn_down_shexp.weight", (2816, width)),
            ]
    return Shape("deepseek-v2-lite", "deepseek2", metadata, tensors, vocabulary)


def _mamba() -> Shape:
    width, layers, inner, state, rank, kernel, vocabulary = 2560, 64, 5120, 16, 160, 4, 50280
    metadata = {
        "context_length": 1048576, "embedding_length": width, "block_count": layers, "feed_forward_length": 0,
        "attention.head_count": 0, "attention.layer_norm_rms_epsilon": 1e-5,
        "ssm.conv_kernel": kernel, "ssm.inner_size": inner, "ssm.state_size": state, "ssm.time_step_rank": rank,
    }  # fmt: skip
    tensors = _ends(width, vocabulary, tied=True)
    for index in range(layers):
        block = f"blk.{index}."
        tensors += [
            (block + "attn_norm.weight", (width,)),
            (block + "ssm_in.weight", (width, 2 * inner)),
            (block + "ssm_conv1d.weight", (kernel, inner)),
            (block + "ssm_conv1d.bias", (inner,)),
            (block + "ssm_x.weight", (inner, rank + 2 * state)),
            (block + "ssm_dt.weight", (rank, inner)),
            (block + "ssm_dt.bias", (inner,)),
            (block + "ssm_a", (state, inner)),
            (block + "ssm_d", (inner,)),
            (block + "ssm_out.weight", (inner, width)),
        ]
    return Shape("mamba-2.8b", "mamba", metadata, tensors, vocabulary)


def _granite_hybrid() -> Shape:
    width, layers, heads, kv_heads, inner, vocabulary = 2048, 40, 32, 8, 8192, 100352
    ssm_inner, state, groups, ssm_heads, kernel = 4096, 128, 1, 64, 4
    attention = {5, 15, 25, 35}
    metadata = _attention(width, layers, heads, None, 64, 131072) | {
        "attention.head_count_kv": [kv_heads if index in attention else 0 for index in range(layers)],
        "feed_forward_length": inner,
        "ssm.conv_kernel": kernel, "ssm.inner_size": ssm_inner, "ssm.state_size": state,
        "ssm.time_step_rank": ssm_heads, "ssm.group_count": groups,
    }  # fmt: skip
    channels = ssm_inner + 2 * groups * state
    tensors = _ends(width, vocabulary, tied=True)
    for index in range(layers):
        block = f"blk.{index}."
        tensors += [(block + "attn_norm.weight", (width,)), (block + "ffn_norm.weight", (width,))]
        if index in attention:
            tensors += _heads(block, width, heads * 64, kv_heads * 64, bias=False)
        else:
            tensors += [
                (block + "ssm_in.weight", (width, 2 * ssm_inner + 2 * groups * state + ssm_heads)),
                (block + "ssm_conv1d.weight", (kernel, channels)),
                (block + "ssm_conv1d.bias", (channels,)),
                (block + "ssm_dt.bias", (ssm_heads,)),
                (block + "ssm_a", (1, ssm_heads)),
                (block + "ssm_d", (1, ssm_heads)),
                (block + "ssm_norm.weight", (ssm_inner // groups, groups)),
                (block + "ssm_out.weight", (ssm_inner, width)),
            ]
        tensors += _feed_forward(block, width, inner)
    return Shape("granite-4.0-h-micro", "granitehybrid", metadata, tensors, vocabulary)


def _lfm2() -> Shape:
    width, layers, heads, kv_heads, inner, vocabulary = 2048, 16, 32, 8, 8192, 65536
    attention = {2, 5, 8, 10, 12, 14}
    metadata = _attention(width, layers, heads, None, 64, 128000) | {
        "attention.head_count_kv": [kv_heads if index in attention else 0 for index in range(layers)],
        "feed_forward_length": inner,
        "shortconv.l_cache": 3,
    }
    tensors: list[tuple[str, Dimensions]] = [
        ("token_embd.weight", (width, vocabulary)),
        ("token_embd_norm.weight", (width,)),
    ]
    for index in range(layers):
        block = f"blk.{index}."
        tensors += [(block + "attn_norm.weight", (width,)), (block + "ffn_norm.weight", (width,))]
        if index in attention:
            tensors += _heads(block, width, heads * 64, kv_heads * 64, bias=False)
            tensors += [(block + "attn_q_norm.weight", (64,)), (block + "attn_k_norm.weight", (64,))]
        else:
            tensors += [
                (block + "shortconv.conv.weight", (3, width)),
                (block + "shortconv.in_proj.weight", (width, 3 * width)),
                (block + "shortconv.out_proj.weight", (width, width)),
            ]
        tensors += _feed_forward(block, width, inner)
    return Shape("lfm2-1.2b", "lfm2", metadata, tensors, vocabulary)


def _qwen35() -> Shape:
    width, layers, heads, kv_heads, size, inner, vocabulary = 2560, 32, 16, 4, 256, 9216, 248320
    state, key_heads, value_heads, kernel = 128, 16, 32, 4
    metadata = _attention(width, layers, heads, kv_heads, size, 262144) | {
        "feed_forward_length": inner,
        "rope.dimension_count": 64,
        "rope.dimension_sections": [11, 11, 10, 0],
        "full_attention_interval": 4,
        "ssm.conv_kernel": kernel, "ssm.inner_size": state * value_heads, "ssm.state_size": state,
        "ssm.time_step_rank": value_heads, "ssm.group_count": key_heads,
    }  # fmt: skip
    value_size, channels = state * value_heads, 2 * state * key_heads + state * value_heads
    tensors = _ends(width, vocabulary, tied=True)
    for index in range(layers):
        block = f"blk.{index}."
        tensors += [(block + "attn_norm.weight", (width,)), (block + "post_attention_norm.weight", (width,))]
        if (index + 1) % 4 == 0:
            tensors += [
                (block + "attn_q.weight", (width, 2 * heads * size)),
                (block + "attn_k.weight", (width, kv_heads * size)),
                (block + "attn_v.weight", (width, kv_heads * size)),
                (block + "attn_output.weight", (heads * size, width)),
                (block + "attn_q_norm.weight", (size,)),
                (block + "attn_k_norm.weight", (size,)),
            ]
        else:
            tensors += [
                (block + "attn_qkv.weight", (width, channels)),
                (block + "attn_gate.weight", (width, value_size)),
                (block + "ssm_conv1d.weight", (kernel, channels)),
                (block + "ssm_dt.bias", (value_heads,)),
                (block + "ssm_a", (value_heads,)),
                (block + "ssm_beta.weight", (width, value_heads)),
                (block + "ssm_alpha.weight", (width, value_heads)),
                (block + "ssm_norm.weight", (state,)),
                (block + "ssm_out.weight", (value_size, width)),
            ]
        tensors += _feed_forward(block, width, inner)
    return Shape("qwen3.5-4b", "qwen35", metadata, tensors, vocabulary)


def published_shapes() -> dict[str, Shape]:
    """The models, by name."""
    shapes = [
        _llama("llama-3.1-8b", width=4096, layers=32, heads=32, kv_heads=8, inner=14336, vocabulary=128256),
        _llama("llama-3.2-1b", width=2048, layers=16, heads=32, kv_heads=8, inner=8192, vocabulary=128256, tied=True),
        _llama(
            "llama-2-7b", width=4096, layers=32, heads=32, kv_heads=32, inner=11008, vocabulary=32000, context=4096
        ),
        _mixtral(),
        _dense(
            "qwen2.5-7b", architecture="qwen2", bias=True,
            width=3584, layers=28, heads=28, kv_heads=4, inner=18944, vocabulary=152064,
        ),
        _dense(
            "qwen2.5-0.5b", architecture="qwen2", bias=True, tied=True,
            width=896, layers=24, heads=14, kv_heads=2, inner=4864, vocabulary=151936,
        ),
        _dense(
            "qwen3-4b", architecture="qwen3", head_norms=True, tied=True,
            width=2560, layers=36, heads=32, kv_heads=8, head=128, inner=9728, vocabulary=151936,
        ),
        _qwen3_moe(),
        _dense(
            "gemma-2-9b", architecture="gemma2", post_norms=True, tied=True, context=8192,
            width=3584, layers=42, heads=16, kv_heads=8, head=256, inner=14336, vocabulary=256000,
            more={"attention.sliding_window": 4096},
        ),
        _dense(
            "gemma-3-4b", architecture="gemma3", post_norms=True, head_norms=True, tied=True,
            width=2560, layers=34, heads=8, kv_heads=4, head=256, inner=10240, vocabulary=262144,
            more={"attention.sliding_window": 1024},
        ),
        _phi3(),
        _gpt_oss(),
        _starcoder2(),
        _deepseek2(),
        _mamba(),
        _granite_hybrid(),
        _lfm2(),
        _qwen35(),
    ]  # fmt: skip
    return {shape.name: shape for shape in shapes}
