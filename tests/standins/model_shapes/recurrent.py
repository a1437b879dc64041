"""Models with layers that keep a state instead of a KV cache: Mamba, short convolutions, linear attention."""

from __future__ import annotations

from standins.model_shapes.blocks import attention_metadata, attention_tensors, end_tensors, feed_forward_tensors
from standins.model_shapes.shape import Dimensions, Shape


def mamba(*, width: int = 2560, layers: int = 64, vocabulary: int = 50280) -> Shape:
    inner, state, rank, kernel = 2 * width, 16, width // 16, 4
    metadata = {
        "context_length": 1048576, "embedding_length": width, "block_count": layers, "feed_forward_length": 0,
        "attention.head_count": 0, "attention.layer_norm_rms_epsilon": 1e-5,
        "ssm.conv_kernel": kernel, "ssm.inner_size": inner, "ssm.state_size": state, "ssm.time_step_rank": rank,
    }  # fmt: skip
    tensors = end_tensors(width, vocabulary, tied=True)
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


def granite_hybrid(
    *, width: int = 2048, layers: int = 40, heads: int = 32, state: int = 128, every: int = 10, vocabulary: int = 100352
) -> Shape:
    kv_heads, inner, size = heads // 4, 4 * width, width // heads
    ssm_inner, groups, ssm_heads, kernel = 2 * width, 1, 2 * heads, 4
    attention = {index for index in range(layers) if index % every == every // 2}
    metadata = attention_metadata(width, layers, heads, None, size, 131072) | {
        "attention.head_count_kv": [kv_heads if index in attention else 0 for index in range(layers)],
        "feed_forward_length": inner,
        "ssm.conv_kernel": kernel, "ssm.inner_size": ssm_inner, "ssm.state_size": state,
        "ssm.time_step_rank": ssm_heads, "ssm.group_count": groups,
    }  # fmt: skip
    channels = ssm_inner + 2 * groups * state
    tensors = end_tensors(width, vocabulary, tied=True)
    for index in range(layers):
        block = f"blk.{index}."
        tensors += [(block + "attn_norm.weight", (width,)), (block + "ffn_norm.weight", (width,))]
        if index in attention:
            tensors += attention_tensors(block, width, heads * size, kv_heads * size, bias=False)
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
        tensors += feed_forward_tensors(block, width, inner)
    return Shape("granite-4.0-h-micro", "granitehybrid", metadata, tensors, vocabulary)


def lfm2() -> Shape:
    width, layers, heads, kv_heads, inner, vocabulary = 2048, 16, 32, 8, 8192, 65536
    attention = {2, 5, 8, 10, 12, 14}
    metadata = attention_metadata(width, layers, heads, None, 64, 128000) | {
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
            tensors += attention_tensors(block, width, heads * 64, kv_heads * 64, bias=False)
            tensors += [(block + "attn_q_norm.weight", (64,)), (block + "attn_k_norm.weight", (64,))]
        else:
            tensors += [
                (block + "shortconv.conv.weight", (3, width)),
                (block + "shortconv.in_proj.weight", (width, 3 * width)),
                (block + "shortconv.out_proj.weight", (width, width)),
            ]
        tensors += feed_forward_tensors(block, width, inner)
    return Shape("lfm2-1.2b", "lfm2", metadata, tensors, vocabulary)


def qwen35() -> Shape:
    width, layers, heads, kv_heads, size, inner, vocabulary = 2560, 32, 16, 4, 256, 9216, 248320
    state, key_heads, value_heads, kernel = 128, 16, 32, 4
    metadata = attention_metadata(width, layers, heads, kv_heads, size, 262144) | {
        "feed_forward_length": inner,
        "rope.dimension_count": 64,
        "rope.dimension_sections": [11, 11, 10, 0],
        "full_attention_interval": 4,
        "ssm.conv_kernel": kernel, "ssm.inner_size": state * value_heads, "ssm.state_size": state,
        "ssm.time_step_rank": value_heads, "ssm.group_count": key_heads,
    }  # fmt: skip
    value_size, channels = state * value_heads, 2 * state * key_heads + state * value_heads
    tensors = end_tensors(width, vocabulary, tied=True)
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
        tensors += feed_forward_tensors(block, width, inner)
    return Shape("qwen3.5-4b", "qwen35", metadata, tensors, vocabulary)
