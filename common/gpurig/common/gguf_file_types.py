"""The names of `general.file_type`: which quantization a GGUF file calls itself.

The numbers are llama.cpp's `llama_ftype` (include/llama.h), the names those that its `llama-quantize` takes. A test
holds them against the bindings that are installed.
"""

from __future__ import annotations

from gpurig.common.gguf import Gguf

FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
    40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
# llama.cpp sets this bit where it guessed the type from the tensors.
_GUESSED = 1024


def quantization(gguf: Gguf) -> str | None:
    """The quantization that the file names, for example "Q4_K_M"; None where it names none that is known here."""
    kind = gguf.metadata.get("general.file_type")
    return FILE_TYPES.get(kind & ~_GUESSED) if isinstance(kind, int) else None


def trained_context(gguf: Gguf) -> int | None:
    """The context in tokens for which the model was made; None where the file does not say."""
    length = gguf.of_architecture("context_length")
    return length if isinstance(length, int) and not isinstance(length, bool) and length > 0 else None
