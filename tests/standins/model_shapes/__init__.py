"""Models of real sizes without their weights: a GGUF header, and a hole where gigabytes of tensors would be.

The shapes are those of published models. llama.cpp reads such a file as any other; with `no_alloc` it never looks
into the hole, so every figure it names is the figure of the real model.
"""

from __future__ import annotations

from standins.model_shapes.blocks import dense
from standins.model_shapes.recurrent import granite_hybrid, lfm2, mamba, qwen35
from standins.model_shapes.shape import Shape, write_shape
from standins.model_shapes.transformers import deepseek2, gpt_oss, llama, mixtral, phi3, qwen3_moe, starcoder2

__all__ = ["Shape", "published_shapes", "write_shape"]


def published_shapes() -> dict[str, Shape]:
    """The models, by name."""
    shapes = [
        llama("llama-3.1-8b", width=4096, layers=32, heads=32, kv_heads=8, inner=14336, vocabulary=128256),
        llama("llama-3.2-1b", width=2048, layers=16, heads=32, kv_heads=8, inner=8192, vocabulary=128256, tied=True),
        llama(
            "llama-2-7b", width=4096, layers=32, heads=32, kv_heads=32, inner=11008, vocabulary=32000, context=4096
        ),
        mixtral(),
        dense(
            "qwen2.5-7b", architecture="qwen2", bias=True,
            width=3584, layers=28, heads=28, kv_heads=4, inner=18944, vocabulary=152064,
        ),
        dense(
            "qwen2.5-0.5b", architecture="qwen2", bias=True, tied=True,
            width=896, layers=24, heads=14, kv_heads=2, inner=4864, vocabulary=151936,
        ),
        dense(
            "qwen3-4b", architecture="qwen3", head_norms=True, tied=True,
            width=2560, layers=36, heads=32, kv_heads=8, head=128, inner=9728, vocabulary=151936,
        ),
        qwen3_moe(),
        dense(
            "gemma-2-9b", architecture="gemma2", post_norms=True, tied=True, context=8192,
            width=3584, layers=42, heads=16, kv_heads=8, head=256, inner=14336, vocabulary=256000,
            more={"attention.sliding_window": 4096},
        ),
        dense(
            "gemma-3-4b", architecture="gemma3", post_norms=True, head_norms=True, tied=True,
            width=2560, layers=34, heads=8, kv_heads=4, head=256, inner=10240, vocabulary=262144,
            more={"attention.sliding_window": 1024},
        ),
        phi3(),
        gpt_oss(),
        starcoder2(),
        deepseek2(),
        mamba(),
        granite_hybrid(),
        lfm2(),
        qwen35(),
    ]  # fmt: skip
    return {shape.name: shape for shape in shapes}
