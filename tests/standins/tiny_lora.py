"""LoRA adapters of tiny models, and the same models with the adapters' products added to their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from standins.tiny_gguf import gguf_bytes

TARGETS = ("blk.0.attn_q.weight", "blk.1.attn_v.weight", "blk.0.ffn_up.weight", "blk.1.ffn_down.weight")


def write_lora(
    path: Path,
    model: Path,
    *,
    seed: int = 1,
    rank: int = 4,
    alpha: float | None = 8.0,
    strength: float = 0.4,
    targets: Sequence[str] = TARGETS,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Write an adapter for a model whose tensors are F32.

    Args:
        alpha: the products are scaled by alpha / rank; None: the file does not say, and they are not.
        strength: scale of the random weights.
        targets: names of the model's tensors.
        more: metadata that replaces or adds; None as a value leaves a key out.
    """
    random = np.random.default_rng(seed)
    reader = gguf.GGUFReader(model)
    shapes = {tensor.name: tensor.data.shape for tensor in reader.tensors}
    tensors: dict[str, np.ndarray] = {}
    for name in targets:
        *many, outs, ins = shapes[name]
        a, b = (*many, rank, ins), (*many, outs, rank)
        if name == "token_embd.weight":
            a, b = (outs, rank), (ins, rank)
        tensors[f"{name}.lora_a"] = random.normal(0.0, strength, a).astype(np.float32)
        tensors[f"{name}.lora_b"] = random.normal(0.0, strength, b).astype(np.float32)
    metadata: dict[str, Any] = {
        "general.type": "adapter",
        "general.architecture": str(reader.fields["general.architecture"].contents()),
        "adapter.type": "lora",
        "adapter.lora.alpha": alpha,
        **(more or {}),
    }
    path.write_bytes(gguf_bytes({key: value for key, value in metadata.items() if value is not None}, tensors))
    return path


def write_merged(path: Path, model: Path, adapters: Mapping[Path, float]) -> Path:
    """Write the model with adapters merged in: W + scale · alpha / rank · B·A, computed in double precision."""
    base = gguf.GGUFReader(model)
    tensors = {tensor.name: np.array(tensor.data, dtype=np.float64) for tensor in base.tensors}
    for file, scale in adapters.items():
        reader = gguf.GGUFReader(file)
        parts = {tensor.name: np.array(tensor.data, dtype=np.float64) for tensor in reader.tensors}
        alpha = reader.fields.get("adapter.lora.alpha")
        for name in {part.removesuffix(".lora_a") for part in parts if part.endswith(".lora_a")}:
            a, b = parts[f"{name}.lora_a"], parts[f"{name}.lora_b"]
            factor = scale * (float(alpha.contents()) / b.shape[-1] if alpha and alpha.contents() else 1.0)
            # An embedding's A has a row for each token: what is added to that token's row is B · that row.
            tensors[name] += factor * (a @ b.T if name == "token_embd.weight" else b @ a)
    metadata = {name: field.contents() for name, field in base.fields.items() if not name.startswith("GGUF.")}
    path.write_bytes(gguf_bytes(metadata, {name: data.astype(np.float32) for name, data in tensors.items()}))
    return path
