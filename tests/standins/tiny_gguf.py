"""A valid Llama GGUF of a few hundred kilobytes with random weights: enough for every path but sense.

Written with nothing but struct, so that the product's reader is not tested against its own mirror image; that the
file is right is shown by llama.cpp, which loads it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
_ALIGNMENT = 32
WORDS = ("good", "bad", "stage", "script", "test", "build", "image", "deploy", "job", "yes", "no", "partly")


def vocabulary(words: Sequence[str] = WORDS) -> list[tuple[str, float, int]]:
    """A SentencePiece vocabulary: (text, score, type); bytes make everything spellable."""
    pieces: list[tuple[str, float, int]] = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    pieces += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    texts = ["▁", *(chr(code) for code in range(ord("a"), ord("z") + 1)), ":", "\n"]
    # Every prefix of every word, so that merging letter by letter reaches the word.
    for word in words:
        for piece in (word, f"▁{word}"):
            texts += [piece[:length] for length in range(1, len(piece) + 1)]
    for text in dict.fromkeys(texts):
        pieces.append((text, float(len(text)), NORMAL))
    return pieces


def write_tiny_gguf(
    path: Path,
    *,
    seed: int = 1,
    context: int = 512,
    chat_template: str = "",
    name: str = "tiny",
    sharpness: float = 4.0,
    vocabulary_: Sequence[tuple[str, float, int]] | None = None,
    width: int = 32,
    experts: int = 0,
) -> Path:
    """Write the model.

    Args:
        seed: of the weights; another seed is another model.
        sharpness: scale of the output layer; 0 makes every token equally likely.
        vocabulary_: instead of `vocabulary()`.
        width: of the embeddings; the feed-forward layers have twice as much.
        experts: a mixture of so many, of which two are used; 0 for none.
    """
    random = np.random.default_rng(seed)
    layers, heads, inner = 2, 2, 2 * width
    pieces = list(vocabulary_ or vocabulary())

    def weights(*shape: int, scale: float = 0.3) -> np.ndarray:
        return random.normal(0.0, scale, shape).astype(np.float32)

    tensors: dict[str, np.ndarray] = {
        "token_embd.weight": weights(len(pieces), width, scale=1.0),
        "output_norm.weight": np.ones(width, np.float32),
        "output.weight": weights(len(pieces), width, scale=1.0) * np.float32(sharpness / width**0.5),
    }
    for layer in range(layers):
        tensors |= {
            f"blk.{layer}.attn_norm.weight": np.ones(width, np.float32),
            f"blk.{layer}.attn_q.weight": weights(width, width),
            f"blk.{layer}.attn_k.weight": weights(width, width),
            f"blk.{layer}.attn_v.weight": weights(width, width),
            f"blk.{layer}.attn_output.weight": weights(width, width),
            f"blk.{layer}.ffn_norm.weight": np.ones(width, np.float32),
        }
        many, end = ((experts,), "_exps") if experts else ((), "")
        tensors |= {
            f"blk.{layer}.ffn_gate{end}.weight": weights(*many, inner, width),
            f"blk.{layer}.ffn_up{end}.weight": weights(*many, inner, width),
            f"blk.{layer}.ffn_down{end}.weight": weights(*many, width, inner),
        }
        if experts:
            tensors[f"blk.{layer}.ffn_gate_inp.weight"] = weights(experts, width)
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": name,
        "llama.context_length": context,
        "llama.embedding_length": width,
        "llama.block_count": layers,
        "llama.feed_forward_length": inner,
        "llama.attention.head_count": heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": width // heads,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [text for text, _, _ in pieces],
        "tokenizer.ggml.scores": [score for _, score, _ in pieces],
        "tokenizer.ggml.token_type": [kind for _, _, kind in pieces],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    if experts:
        metadata |= {"llama.expert_count": experts, "llama.expert_used_count": 2}
    if chat_template:
        metadata["tokenizer.chat_template"] = chat_template
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gguf_bytes(metadata, tensors))
    return path


def gguf_bytes(metadata: dict[str, Any], tensors: dict[str, np.ndarray]) -> bytes:
    """A GGUF file, version 3, with F32 tensors."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        head += _text(key) + _typed(value)
    body = b""
    for name, array in tensors.items():
        shape = array.shape[::-1]  # ggml counts the fastest dimension first
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(body))
        body += _padded(array.tobytes())
    return _padded(head) + body


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _typed(value: Any) -> bytes:
    if isinstance(value, list):
        packed = [_item(entry) for entry in value]
        # llama.cpp wants signed integers inside arrays, unsigned ones alone.
        kind = 5 if packed[0][0] == 4 else packed[0][0]
        return struct.pack("<IIQ", 9, kind, len(value)) + b"".join(payload for _, payload in packed)
    kind, payload = _item(value)
    return struct.pack("<I", kind) + payload


def _item(value: Any) -> tuple[int, bytes]:
    match value:
        case bool():
            return 7, struct.pack("<?", value)
        case int():
            return 4, struct.pack("<I", value)
        case float():
            return 6, struct.pack("<f", value)
        case _:
            return 8, _text(value)
