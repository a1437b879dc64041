"""How much of a card's memory a model may use."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpurig.common.errors import InputError
from gpurig.provisioning.vram import CLASSES_GB, GIB, LEAST_SHARE, vram_class_gb

_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*(GB|GiB|MB|MiB|G|M)?", re.IGNORECASE)
_MIB = 2**20
# What a driver's context, cuBLAS and the kernels' own scratch take beside llama.cpp's buffers. Assumed, not measured:
# no GPU was at hand. gguf-parser-go assumes 250 MiB a card (--platform-footprint); reports of llama.cpp users show 300
# to 500 MiB between the sum of its buffers and what nvidia-smi counts.
DRIVER_BYTES = 500 * _MIB


@dataclass(frozen=True)
class Card:
    """A GPU's memory.

    Attributes:
        label: as it was asked for: "8 GB", "7.5 GiB", or a card's name.
        memory_bytes: what a job finds on it.
        class_gb: the class it belongs to; None below the smallest.
    """

    label: str
    memory_bytes: int
    class_gb: int | None

    @property
    def usable_bytes(self) -> int:
        """What is left for llama.cpp's buffers."""
        return max(0, self.memory_bytes - DRIVER_BYTES)


def parse_card(text: str) -> Card:
    """A card as a user names it: a size that cards are sold in ("8GB"), or exactly what is there ("7.5GiB").

    A job that asks for the tag `vram-8gb` may run on any card that is sold as 8 GB, and drivers report up to 7 % less
    than that; so a sold size counts as the least such a card may have.

    Raises:
        InputError: it is no size.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise InputError(
            f'--vram "{text}" is no size', hint="a size that cards are sold in (8GB, 24GB), or what is free (7.5GiB)"
        )
    number, unit = float(found[1]), (found[2] or "GB").lower()
    if unit in {"gib", "mib", "mb", "m"}:
        size = round(number * (GIB if unit == "gib" else _MIB))
        return Card(f"{found[1]} {'GiB' if unit == 'gib' else 'MiB'}", size, vram_class_gb(size))
    if number not in CLASSES_GB:
        near = min(CLASSES_GB, key=lambda size: abs(size - number))
        raise InputError(
            f"no card is sold with {found[1]} GB", hint=f"--vram {near}GB, or exactly what is free: {found[1]}GiB"
        )
    return sold_card(int(number))


def sold_card(class_gb: int) -> Card:
    """A card that is sold with so many GB."""
    return Card(f"{class_gb} GB", round(class_gb * GIB * LEAST_SHARE), class_gb)


def smallest_class(needed_bytes: int) -> int | None:
    """The smallest class whose every card has room for so many bytes of buffers; None beyond the largest."""
    return next((size for size in CLASSES_GB if sold_card(size).usable_bytes >= needed_bytes), None)
