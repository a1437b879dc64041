"""Tiny models of several architectures with random weights, which llama.cpp computes with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from standins.model_shapes.blocks import dense
from standins.model_shapes.recurrent import granite_hybrid, mamba
from standins.model_shapes.shape import Shape
from standins.tiny_gguf import gguf_bytes, vocabulary


def tiny_shapes() -> dict[str, Shape]:
    """By what is special about them."""
    size = len(vocabulary())
    window = dense(
        "window", architecture="gemma2", post_norms=True, tied=True, context=512,
        width=64, layers=2, heads=4, kv_heads=2, head=16, inner=128, vocabulary=size,
        more={"attention.sliding_window": 16, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    )  # fmt: skip
    grouped = dense(
        "grouped", architecture="qwen2", bias=True, tied=True, context=512,
        width=64, layers=2, heads=4, kv_heads=1, inner=128, vocabulary=size,
    )  # fmt: skip
    return {
        "sliding window": window,
        "grouped heads": grouped,
        "recurrent": mamba(width=64, layers=2, vocabulary=size),
        "hybrid": granite_hybrid(width=64, layers=2, heads=4, state=16, every=2, vocabulary=size),
    }


def with_position_table(*, positions: int) -> Shape:
    """GPT-2's: a position is looked up, so that there are no more than those of the table."""
    width, inner, size = 32, 64, len(vocabulary())
    tensors: list[tuple[str, tuple[int, ...]]] = [
        ("token_embd.weight", (width, size)),
        ("position_embd.weight", (width, positions)),
        *_with_bias("output_norm", width),
    ]
    for block in ("blk.0.", "blk.1."):
        tensors += [*_with_bias(f"{block}attn_norm", width), *_with_bias(f"{block}attn_qkv", width, 3 * width)]
        tensors += [*_with_bias(f"{block}attn_output", width, width), *_with_bias(f"{block}ffn_norm", width)]
        tensors += [*_with_bias(f"{block}ffn_up", width, inner), *_with_bias(f"{block}ffn_down", inner, width)]
    metadata = {"context_length": positions, "embedding_length": width, "block_count": 2, "feed_forward_length": inner}
    heads = {"attention.head_count": 2, "attention.layer_norm_epsilon": 1e-5}
    return Shape("table", "gpt2", metadata | heads, tensors, size)


def _with_bias(name: str, *dimensions: int) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"{name}.weight", dimensions), (f"{name}.bias", dimensions[-1:])]


def write_random(path: Path, shape: Shape, *, seed: int = 1, poison: str = "") -> Path:
    """Write the model with random weights, in F32, and the tiny models' vocabulary.

    Tokens that hold the character `poison` make every figure that comes after them NaN.
    """
    random = np.random.default_rng(seed)
    pieces = vocabulary()
    tensors = {name: _weights(random, name, dimensions[::-1]) for name, dimensions in shape.tensors}
    if poison:
        spoil(tensors, [text for text, _, _ in pieces], poison)
    metadata: dict[str, Any] = {
        "general.architecture": shape.architecture,
        "general.name": shape.name,
        **{f"{shape.architecture}.{key}": value for key, value in shape.metadata.items()},
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [text for text, _, _ in pieces],
        "tokenizer.ggml.scores": [score for _, score, _ in pieces],
        "tokenizer.ggml.token_type": [kind for _, _, kind in pieces],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    path.write_bytes(gguf_bytes(metadata, tensors))
    return path


def spoil(tensors: dict[str, np.ndarray], texts: Sequence[str], poison: str) -> None:
    """Make NaN of the embeddings of the tokens that hold the character `poison`; the output layer stays whole."""
    embeddings = tensors["token_embd.weight"]
    tensors.setdefault("output.weight", embeddings.copy())
    byte = f"<0x{ord(poison):02X}>"
    embeddings[[number for number, text in enumerate(texts) if poison in text or text == byte]] = np.nan


def _weights(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if "norm" in name or name.endswith("ssm_d"):
        return np.ones(shape, np.float32)
    if name.endswith("ssm_a"):
        # A state that grows would end at infinity.
        return -np.exp(random.normal(0.0, 0.5, shape)).astype(np.float32)
    return random.normal(0.0, 0.3, shape).astype(np.float32)
