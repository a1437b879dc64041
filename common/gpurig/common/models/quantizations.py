"""The quantizations that llama.cpp can write: their names, numbers, and what a weight takes."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from gpurig.common.errors import InputError
from gpurig.common.ggml_types import GGML_TYPES, TYPE_NUMBERS
from gpurig.common.gguf_file_types import FILE_TYPES

# The type of most tensors in a file of that kind (llama_ftype_get_default_type, llama-quant.cpp), from most bits to
# least. What llama-quantize does not offer is not here.
_MOST = {
    "F32": "f32", "F16": "f16", "BF16": "bf16", "Q8_0": "q8_0", "Q6_K": "q6_K", "Q5_1": "q5_1", "Q5_K_M": "q5_K",
    "Q5_K_S": "q5_K", "Q5_0": "q5_0", "Q4_1": "q4_1", "Q4_K_M": "q4_K", "Q4_K_S": "q4_K", "Q4_0": "q4_0",
    "IQ4_NL": "iq4_nl", "MXFP4_MOE": "mxfp4", "IQ4_XS": "iq4_xs", "Q3_K_L": "q3_K", "Q3_K_M": "q3_K",
    "Q3_K_S": "q3_K", "IQ3_M": "iq3_s", "IQ3_S": "iq3_s", "IQ3_XS": "iq3_s", "IQ3_XXS": "iq3_xxs", "Q2_K": "q2_K",
    "Q2_K_S": "q2_K", "IQ2_M": "iq2_s", "IQ2_S": "iq2_xs", "IQ2_XS": "iq2_xs", "Q2_0": "q2_0", "TQ2_0": "tq2_0",
    "IQ2_XXS": "iq2_xxs", "IQ1_M": "iq1_m", "TQ1_0": "tq1_0", "IQ1_S": "iq1_s", "Q1_0": "q1_0",
}  # fmt: skip
# llama-quantize's short names.
_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}


@dataclass(frozen=True)
class Quantization:
    """What a model can be quantized to.

    Attributes:
        name: for example "Q4_K_M".
        file_type: llama.cpp's llama_ftype.
        bits: per weight, of the type that most tensors get; a mixture (_M, _L) comes out above it.
    """

    name: str
    file_type: int
    bits: float


def bits_per_weight(kind: int) -> float:
    """Bits that a ggml_type takes per number, scales included; KeyError where it is newer than our table."""
    return GGML_TYPES[kind].block_bytes * 8 / GGML_TYPES[kind].block


_NUMBERS = {name: number for number, name in FILE_TYPES.items()}
QUANTIZATIONS = {
    name: Quantization(name, _NUMBERS[name], bits_per_weight(TYPE_NUMBERS[kind])) for name, kind in _MOST.items()
}


def parse_quantizations(text: str) -> tuple[Quantization, ...]:
    """The quantizations that a list such as "Q4_K_M,q5_k" names, each once, in its order.

    Raises:
        InputError: one is unknown; the details list the known ones with their bits per weight.
    """
    found: dict[str, Quantization] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        upper = word.upper()
        one = QUANTIZATIONS.get(_ALIASES.get(upper, upper))
        if one is None:
            raise InputError(
                f"there is no quantization {word!r}",
                hint="more bits are nearer to the original; Q4_K_M is where most begin",
                details=known_quantizations(),
            )
        found[one.name] = one
    if not found:
        raise InputError("no quantization is named", hint="name one or more, for example Q4_K_M,Q5_K_M")
    return tuple(found.values())


def known_quantizations() -> tuple[str, ...]:
    """Lines that list every quantization with its bits per weight."""
    listed = ", ".join(f"{one.name} {one.bits:.3g}" for one in QUANTIZATIONS.values())
    return ("known, with the bits per weight of most tensors:", *textwrap.wrap(listed, 76, break_on_hyphens=False))
