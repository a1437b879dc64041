"""The tensors and the metadata that architectures share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from standins.model_shapes.shape import Dimensions, Shape


def dense(
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
    metadata = attention_metadata(width, layers, heads, kv_heads, size, context) | {"feed_forward_length": inner}
    tensors = end_tensors(width, vocabulary, tied=tied)
    for index in range(layers):
        block = f"blk.{index}."
        tensors += [(block + "attn_norm.weight", (width,)), (block + "ffn_norm.weight", (width,))]
        tensors += attention_tensors(block, width, heads * size, kv_heads * size, bias=bias)
        if head_norms:
            tensors += [(block + "attn_q_norm.weight", (size,)), (block + "attn_k_norm.weight", (size,))]
        if post_norms:
            tensors += [(block + "post_attention_norm.weight", (width,)), (block + "post_ffw_norm.weight", (width,))]
        if layer is None:
            tensors += feed_forward_tensors(block, width, inner)
        else:
            tensors += [(block + part, dimensions) for part, dimensions in layer(index)]
    return Shape(name, architecture, metadata | dict(more or {}), tensors, vocabulary)


def attention_metadata(  # noqa: PLR0917 - six numbers that every model has
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


def end_tensors(width: int, vocabulary: int, *, tied: bool) -> list[tuple[str, Dimensions]]:
    tensors: list[tuple[str, Dimensions]] = [
        ("token_embd.weight", (width, vocabulary)),
        ("output_norm.weight", (width,)),
    ]
    return tensors if tied else [*tensors, ("output.weight", (width, vocabulary))]


def attention_tensors(block: str, width: int, query: int, key: int, *, bias: bool) -> list[tuple[str, Dimensions]]:
    tensors: list[tuple[str, Dimensions]] = [
        (block + "attn_q.weight", (width, query)),
        (block + "attn_k.weight", (width, key)),
        (block + "attn_v.weight", (width, key)),
        (block + "attn_output.weight", (query, width)),
    ]
    if bias:
        tensors += [(block + f"attn_{part}.bias", (size,)) for part, size in (("q", query), ("k", key), ("v", key))]
    return tensors


def feed_forward_tensors(block: str, width: int, inner: int) -> list[tuple[str, Dimensions]]:
    return [
        (block + "ffn_gate.weight", (width, inner)),
        (block + "ffn_up.weight", (width, inner)),
        (block + "ffn_down.weight", (inner, width)),
    ]


def expert_tensors(width: int, inner: int, count: int, *, bias: bool = False) -> list[tuple[str, Dimensions]]:
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
