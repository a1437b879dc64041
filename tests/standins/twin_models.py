"""One model, twice: as a GGUF file and as Transformers' folder, with the same weights in F32 and the same tokenizer.

What this project computes with the one, PyTorch computes with the other (standins.reference). Nothing comes from a hub:
the tokenizer is that of the bundled demo model, a SentencePiece one with byte fallback. Formats: the conversion of
llama.cpp's convert_hf_to_gguf.py (class LlamaModel), backwards for what comes from a GGUF file; Transformers'
LlamaConfig; tokenizers' tokenizer.json; safetensors.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpurig.evaljobs
import numpy as np

from standins.tiny_gguf import BYTE, NORMAL, gguf_bytes

USER_DEFINED = 4
DEMO_MODEL = Path(gpurig.evaljobs.__file__).parent / "assets/models/demo-generator.gguf"
CHAT_TEMPLATE = (
    "{% for message in messages %}<task>{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<ci>{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """The hyperparameters of a Llama."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    context: int
    epsilon: float = 1e-5
    theta: float = 10000.0


@dataclass(frozen=True)
class Vocabulary:
    """A SentencePiece vocabulary: texts, scores and llama.cpp's token types, by token."""

    texts: Sequence[str]
    scores: Sequence[float]
    types: Sequence[int]


@dataclass(frozen=True)
class Twins:
    """Where the two lie.

    Attributes:
        gguf: for llama.cpp.
        folder: for Transformers.
    """

    gguf: Path
    folder: Path


def trained_twins(to: Path, *, chat_template: str = CHAT_TEMPLATE) -> Twins:
    """The bundled demo model with its weights as they are quantized: a model that knows what it writes."""
    import gguf

    reader = gguf.GGUFReader(DEMO_MODEL)
    shape, vocabulary = _demo_shape(reader), demo_vocabulary()
    found = {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    weights = {
        _hf_name(name): _ours_to_hf(array, heads) if (heads := _heads(name, shape)) else array
        for name, array in found.items()
    }
    return _write(to, shape, vocabulary, weights, chat_template=chat_template, name="trained")


def random_twins(to: Path, *, seed: int = 1, context: int = 256, chat_template: str = CHAT_TEMPLATE) -> Twins:
    """A model of the same vocabulary that knows nothing, of another shape: grouped attention, an output layer."""
    random = np.random.default_rng(seed)
    shape = Shape(width=96, layers=3, heads=6, kv_heads=2, inner=160, context=context, theta=50000.0)
    head = shape.width // shape.heads
    vocabulary = demo_vocabulary()

    def weights(*dimensions: int, scale: float = 0.15) -> np.ndarray:
        return random.normal(0.0, scale, dimensions).astype(np.float32)

    found = {
        "model.embed_tokens.weight": weights(len(vocabulary.texts), shape.width, scale=1.0),
        "model.norm.weight": 1 + weights(shape.width),
        "lm_head.weight": weights(len(vocabulary.texts), shape.width, scale=0.3),
    }
    for layer in range(shape.layers):
        found |= {
            f"model.layers.{layer}.{name}.weight": array
            for name, array in {
                "input_layernorm": 1 + weights(shape.width),
                "post_attention_layernorm": 1 + weights(shape.width),
                "self_attn.q_proj": weights(shape.heads * head, shape.width),
                "self_attn.k_proj": weights(shape.kv_heads * head, shape.width),
                "self_attn.v_proj": weights(shape.kv_heads * head, shape.width),
                "self_attn.o_proj": weights(shape.width, shape.heads * head),
                "mlp.gate_proj": weights(shape.inner, shape.width),
                "mlp.up_proj": weights(shape.inner, shape.width),
                "mlp.down_proj": weights(shape.width, shape.inner),
            }.items()
        }
    return _write(to, shape, vocabulary, found, chat_template=chat_template, name="random")


def demo_vocabulary() -> Vocabulary:
    """The bundled demo model's."""
    import gguf

    fields = gguf.GGUFReader(DEMO_MODEL).fields
    return Vocabulary(*(fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "scores", "token_type")))


def _demo_shape(reader: Any) -> Shape:
    def value(name: str) -> Any:
        return reader.fields[f"llama.{name}"].contents()

    return Shape(
        width=value("embedding_length"),
        layers=value("block_count"),
        heads=value("attention.head_count"),
        kv_heads=value("attention.head_count_kv"),
        inner=value("feed_forward_length"),
        context=value("context_length"),
        epsilon=value("attention.layer_norm_rms_epsilon"),
        theta=value("rope.freq_base"),
    )


_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BACK = {theirs: ours for ours, theirs in _NAMES.items()}


def _hf_name(name: str) -> str:
    match name.split("."):
        case ["blk", layer, part, end]:
            return f"model.layers.{layer}.{_NAMES[part]}.{end}"
        case [part, end]:
            return f"{_NAMES[part]}.{end}"
    raise ValueError(name)


def _gguf_name(name: str) -> str:
    part, _, end = name.rpartition(".")
    if part in _BACK:
        return f"{_BACK[part]}.{end}"
    _, _, layer, inside = part.split(".", 3)
    return f"blk.{layer}.{_BACK[inside]}.{end}"


def _heads(gguf_name: str, shape: Shape) -> int:
    """In how many heads a tensor's rows lie in another order in a GGUF file; 0 where they do not."""
    part = gguf_name.rpartition(".")[0].rpartition(".")[2]
    return {"attn_q": shape.heads, "attn_k": shape.kv_heads}.get(part, 0)


def _hf_to_ours(array: np.ndarray, heads: int) -> np.ndarray:
    """Pairs that are rotated together side by side (llama.cpp) instead of half a head apart (Transformers)."""
    rows = array.shape[0]
    return array.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(array.shape)


def _ours_to_hf(array: np.ndarray, heads: int) -> np.ndarray:
    rows = array.shape[0]
    return array.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(array.shape)


def _write(
    to: Path,
    shape: Shape,
    vocabulary: Vocabulary,
    weights: Mapping[str, np.ndarray],
    *,
    chat_template: str,
    name: str,
) -> Twins:
    """Both of them; `weights` by Transformers' names and in its order."""
    to.mkdir(parents=True, exist_ok=True)
    twins = Twins(to / f"{name}.gguf", to / name)
    tensors = {}
    for hf_name, array in weights.items():
        ours = _gguf_name(hf_name)
        heads = _heads(ours, shape)
        tensors[ours] = np.ascontiguousarray(_hf_to_ours(array, heads) if heads else array, dtype=np.float32)
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": name,
        "llama.context_length": shape.context,
        "llama.embedding_length": shape.width,
        "llama.block_count": shape.layers,
        "llama.feed_forward_length": shape.inner,
        "llama.attention.head_count": shape.heads,
        "llama.attention.head_count_kv": shape.kv_heads,
        "llama.attention.layer_norm_rms_epsilon": shape.epsilon,
        "llama.rope.freq_base": shape.theta,
        "llama.rope.dimension_count": shape.width // shape.heads,
        "llama.vocab_size": len(vocabulary.texts),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": list(vocabulary.texts),
        "tokenizer.ggml.scores": list(vocabulary.scores),
        "tokenizer.ggml.token_type": list(vocabulary.types),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
    }
    if chat_template:
        metadata["tokenizer.chat_template"] = chat_template
    twins.gguf.write_bytes(gguf_bytes(metadata, tensors))
    _write_folder(twins.folder, shape, vocabulary, weights, chat_template)
    return twins


def _write_folder(
    folder: Path, shape: Shape, vocabulary: Vocabulary, weights: Mapping[str, np.ndarray], chat_template: str
) -> None:
    folder.mkdir(exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(vocabulary.texts),
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.theta,
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "float32",
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": shape.context,
        "clean_up_tokenization_spaces": False,
    }
    if chat_template:
        tokenizer_config["chat_template"] = chat_template
    documents = {
        "config.json": config,
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2},
        "tokenizer_config.json": tokenizer_config,
        "tokenizer.json": _tokenizer(vocabulary),
    }
    for file, document in documents.items():
        (folder / file).write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(_safetensors(weights))


def _tokenizer(vocabulary: Vocabulary) -> dict[str, Any]:
    """tokenizers' byte-pair encoding that does what SentencePiece's does: merges in the order of the pieces' scores."""
    tokens = list(zip(vocabulary.texts, vocabulary.scores, vocabulary.types, strict=True))
    known = {text: number for number, (text, _, kind) in enumerate(tokens) if kind in (NORMAL, BYTE)}
    merges = [
        (-score, len(text[:cut]), len(text[cut:]), [text[:cut], text[cut:]])
        for text, score, kind in tokens
        if kind == NORMAL
        for cut in range(1, len(text))
        if text[:cut] in known and text[cut:] in known
    ]
    begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": kind != USER_DEFINED,
            }
            for number, (text, _, kind) in enumerate(tokens)
            if kind not in (NORMAL, BYTE)
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [begin, {"Sequence": {"id": "A", "type_id": 0}}, begin, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {text: number for number, (text, _, _) in enumerate(tokens)},
            "merges": [pair for *_, pair in sorted(merges)],
        },
    }


def _safetensors(weights: Mapping[str, np.ndarray]) -> bytes:
    head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, array in weights.items():
        data = np.ascontiguousarray(array, dtype="<f4").tobytes()
        head[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body
