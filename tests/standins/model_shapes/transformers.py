"""Models whose layers all have attention."""

from __future__ import annotations

from typing import Any

from standins.model_shapes.blocks import attention_metadata, dense, end_tensors, expert_tensors, feed_forward_tensors
from standins.model_shapes.shape import Shape


def llama(name: str, **sizes: Any) -> Shape:
    return dense(name, architecture="llama", **sizes)


def mixtral() -> Shape:
    return llama(
        "mixtral-8x7b",
        width=4096, layers=32, heads=32, kv_heads=8, inner=14336, vocabulary=32000, context=32768,
        more={"expert_count": 8, "expert_used_count": 2},
        layer=lambda _: expert_tensors(4096, 14336, 8),
    )  # fmt: skip


def qwen3_moe() -> Shape:
    return dense(
        "qwen3-30b-a3b",
        architecture="qwen3moe",
        width=2048, layers=48, heads=32, kv_heads=4, head=128, inner=6144, vocabulary=151936,
        head_norms=True,
        more={"expert_count": 128, "expert_used_count": 8, "expert_feed_forward_length": 768},
        layer=lambda _: expert_tensors(2048, 768, 128),
    )  # fmt: skip


def gpt_oss() -> Shape:
    shape = dense(
        "gpt-oss-20b",
        architecture="gpt-oss",
        width=2880, layers=24, heads=64, kv_heads=8, head=64, inner=2880, vocabulary=201088,
        bias=True,
        more={
            "expert_count": 32, "expert_used_count": 4, "expert_feed_forward_length": 2880,
            "attention.sliding_window": 128,
        },
        layer=lambda _: [
            *expert_tensors(2880, 2880, 32, bias=True),
            ("post_attention_norm.weight", (2880,)),
            ("attn_sinks.weight", (64,)),
            ("attn_output.bias", (2880,)),
        ],
    )  # fmt: skip
    tensors = [entry for entry in shape.tensors if not entry[0].endswith("ffn_norm.weight")]
    return Shape(shape.name, shape.architecture, shape.metadata, tensors, shape.vocabulary)


def phi3() -> Shape:
    width, layers, heads, inner, size = 3072, 32, 32, 8192, 96
    metadata = attention_metadata(width, layers, heads, heads, size, 4096) | {"feed_forward_length": inner}
    tensors = end_tensors(width, 32064, tied=False)
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


def starcoder2() -> Shape:
    width, inner = 3072, 12288
    shape = dense(
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


def deepseek2() -> Shape:
    width, layers, heads, lora, rope, key, value, vocabulary = 2048, 27, 16, 512, 64, 192, 128, 102400
    metadata = attention_metadata(width, layers, heads, 1, lora + rope, 163840) | {
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
    tensors = end_tensors(width, vocabulary, tied=False)
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
            tensors += feed_forward_tensors(block, width, 10944)
        else:
            tensors += [(block + part, dimensions) for part, dimensions in expert_tensors(width, 1408, 64)]
            tensors += [
                (block + "ffn_gate_shexp.weight", (width, 2816)),
                (block + "ffn_up_shexp.weight", (width, 2816)),
                (block + "ffn_down_shexp.weight", (2816, width)),
            ]
    return Shape("deepseek-v2-lite", "deepseek2", metadata, tensors, vocabulary)
