"""A model's sizes, and the file that has them: a GGUF header, and a hole where the tensors would be."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
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
