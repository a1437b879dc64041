"""The types of tensors, and how many bytes they take.

From ggml.h and ggml-common.h of the llama.cpp in llama-cpp-python 0.3.36; a test holds the table against the library.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GgmlType:
    """A type of tensor.

    Attributes:
        name: as ggml calls it.
        block: elements of one block; a row is a multiple of it.
        block_bytes: bytes of one block.
    """

    name: str
    block: int
    block_bytes: int

    @property
    def quantized(self) -> bool:
        """Whether several elements share a block."""
        return self.block > 1

    def row_bytes(self, elements: int) -> int:
        """Bytes of `elements` (a multiple of the block) in a row."""
        return elements // self.block * self.block_bytes


# By ggml_type. A number that is not here is newer than this table, or was removed (4, 5, 31 to 33, 36 to 38).
GGML_TYPES = {
    number: GgmlType(*fields)
    for number, fields in {
        0: ("f32", 1, 4), 1: ("f16", 1, 2), 2: ("q4_0", 32, 18), 3: ("q4_1", 32, 20), 6: ("q5_0", 32, 22),
        7: ("q5_1", 32, 24), 8: ("q8_0", 32, 34), 9: ("q8_1", 32, 36), 10: ("q2_K", 256, 84), 11: ("q3_K", 256, 110),
        12: ("q4_K", 256, 144), 13: ("q5_K", 256, 176), 14: ("q6_K", 256, 210), 15: ("q8_K", 256, 292),
        16: ("iq2_xxs", 256, 66), 17: ("iq2_xs", 256, 74), 18: ("iq3_xxs", 256, 98), 19: ("iq1_s", 256, 50),
        20: ("iq4_nl", 32, 18), 21: ("iq3_s", 256, 110), 22: ("iq2_s", 256, 82), 23: ("iq4_xs", 256, 136),
        24: ("i8", 1, 1), 25: ("i16", 1, 2), 26: ("i32", 1, 4), 27: ("i64", 1, 8), 28: ("f64", 1, 8),
        29: ("iq1_m", 256, 56), 30: ("bf16", 1, 2), 34: ("tq1_0", 256, 54), 35: ("tq2_0", 256, 66),
        39: ("mxfp4", 32, 17), 40: ("nvfp4", 64, 36), 41: ("q1_0", 128, 18), 42: ("q2_0", 64, 18),
    }.items()
}  # fmt: skip
TYPE_NUMBERS = {kind.name: number for number, kind in GGML_TYPES.items()}
