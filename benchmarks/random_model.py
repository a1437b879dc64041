"""A model of a real size with random weights: what it writes means nothing, and takes the time that any model takes."""

from __future__ import annotations

import ctypes
import itertools
from pathlib import Path

import gguf
import numpy as np
from gpurig.evaljobs.llama_log import last_errors

WIDTH, LAYERS, HEADS, KV_HEADS, INNER, VOCABULARY, CONTEXT = 1024, 24, 16, 4, 2816, 32000, 4096
# llama_ftype and llama_token_type (llama.h): mostly Q4_K_M; unknown, control, byte, normal.
_Q4_K_M = 15
_UNKNOWN, _CONTROL, _BYTE, _NORMAL = 2, 3, 6, 1
# SentencePiece's mark of a word's beginning.
_WORD = "\u2581"


def random_model(folder: Path) -> Path:
    """The model in Q4_K_M, made where `folder` lacks it: 0.34 billion parameters, 208 MB.

    Raises:
        SystemExit: llama.cpp does not quantize it.
    """
    quantized, whole = folder / "random-0.34b-q4_k_m.gguf", folder / "random-0.34b-f16.gguf"
    if not quantized.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write(whole)
        _quantize(whole, quantized)
        whole.unlink()
    return quantized


def words() -> list[str]:
    """Words that are one token each, for prompts of a known length."""
    return [piece.removeprefix(_WORD) for piece in _words()[:500]]


def _words() -> list[str]:
    letters = "etaoinshrdlu"
    return [_WORD + "".join(word) for length in (2, 3, 4) for word in itertools.product(letters, repeat=length)]


def _tokens() -> tuple[list[bytes], list[int]]:
    texts = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256)), _WORD.encode()]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256, _NORMAL]
    # Each word's beginnings as well: the tokenizer gets to a word by joining two pieces again and again.
    pieces = dict.fromkeys(word[:length] for word in _words() for length in range(2, len(word) + 1))
    more = itertools.chain(pieces, (f"{_WORD}z{number}" for number in itertools.count()))
    for piece in itertools.islice((one for one in more if one != _WORD), VOCABULARY - len(texts)):
        texts.append(piece.encode())
        kinds.append(_NORMAL)
    return texts, kinds


def _write(path: Path) -> None:
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(VOCABULARY)
    texts, kinds = _tokens()
    writer.add_tokenizer_model("llama")
    writer.add_token_list(texts)
    writer.add_token_scores([-float(number) for number in range(VOCABULARY)])
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)  # noqa: FBT003 - the library's interface
    head = WIDTH // HEADS

    def weights(name: str, *shape: int) -> None:
        writer.add_tensor(name, (random.standard_normal(shape, dtype=np.float32) * 0.02).astype(np.float16))

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(WIDTH, dtype=np.float32))

    weights("token_embd.weight", VOCABULARY, WIDTH)
    weights("output.weight", VOCABULARY, WIDTH)
    ones("output_norm.weight")
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        ones(block + "attn_norm.weight")
        ones(block + "ffn_norm.weight")
        weights(block + "attn_q.weight", WIDTH, WIDTH)
        weights(block + "attn_k.weight", KV_HEADS * head, WIDTH)
        weights(block + "attn_v.weight", KV_HEADS * head, WIDTH)
        weights(block + "attn_output.weight", WIDTH, WIDTH)
        weights(block + "ffn_gate.weight", INNER, WIDTH)
        weights(block + "ffn_up.weight", INNER, WIDTH)
        weights(block + "ffn_down.weight", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _quantize(source: Path, target: Path) -> None:
    import llama_cpp  # noqa: PLC0415 - loads shared libraries

    errors = last_errors(llama_cpp)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = _Q4_K_M
    partial = target.with_suffix(".partial")
    if llama_cpp.llama_model_quantize(str(source).encode(), str(partial).encode(), ctypes.byref(parameters)):
        raise SystemExit(f"llama.cpp does not quantize the model: {errors[-1] if errors else 'it does not say why'}")
    partial.rename(target)
