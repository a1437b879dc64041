"""A tiny encoder (BERT) with random weights, as embedding models are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from standins.tiny_gguf import CONTROL, NORMAL, UNKNOWN, gguf_bytes


def write_tiny_bert(path: Path, *, width: int = 32, context: int = 64) -> Path:
    """Write the model; its words are single letters, the mean of their vectors is a text's."""
    random = np.random.default_rng(5)
    special = [("[PAD]", CONTROL), ("[UNK]", UNKNOWN), ("[CLS]", CONTROL), ("[SEP]", CONTROL)]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    # WordPiece as GGUF has it: what begins a word has a mark, what goes on has none.
    pieces = special + [(text, NORMAL) for letter in letters for text in (f"▁{letter}", letter)]

    def weights(*shape: int) -> np.ndarray:
        return random.normal(0.0, 0.3, shape).astype(np.float32)

    def norm(name: str) -> dict[str, np.ndarray]:
        return {f"{name}.weight": np.ones(width, np.float32), f"{name}.bias": np.zeros(width, np.float32)}

    def dense(name: str, rows: int, columns: int) -> dict[str, np.ndarray]:
        return {f"{name}.weight": weights(rows, columns), f"{name}.bias": weights(rows)}

    tensors = {
        "token_embd.weight": weights(len(pieces), width),
        "position_embd.weight": weights(context, width),
        "token_types.weight": weights(2, width),
        **norm("token_embd_norm"),
    }
    for layer in range(2):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors |= dense(f"blk.{layer}.{part}", width, width)
        tensors |= dense(f"blk.{layer}.ffn_up", 2 * width, width) | dense(f"blk.{layer}.ffn_down", width, 2 * width)
        tensors |= norm(f"blk.{layer}.attn_output_norm") | norm(f"blk.{layer}.layer_output_norm")
    metadata: dict[str, Any] = {
        "general.architecture": "bert",
        "general.name": "tiny-bert",
        "bert.context_length": context,
        "bert.embedding_length": width,
        "bert.feed_forward_length": 2 * width,
        "bert.block_count": 2,
        "bert.attention.head_count": 2,
        "bert.attention.layer_norm_epsilon": 1e-12,
        "bert.attention.causal": False,
        "bert.pooling_type": 1,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": [text for text, _ in pieces],
        "tokenizer.ggml.token_type": [kind for _, kind in pieces],
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.cls_token_id": 2,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.eos_token_id": 3,
    }
    path.write_bytes(gguf_bytes(metadata, tensors))
    return path
