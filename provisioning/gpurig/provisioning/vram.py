"""Memory classes: a card belongs to the size it is sold in, although its driver reports less."""

from __future__ import annotations

GIB = 1024**3

# The sizes cards are sold in, in GiB. 2, 3, 5 and 11 are old cards (Quadro P400, GTX 1060, Quadro P2000, RTX 2080 Ti),
# 94 the H100 NVL, 141 the H200, 180 the B200, 192 the MI300X, 288 the MI355X.
CLASSES_GB = (
    2, 3, 4, 5, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 72, 80, 94, 96, 128, 141, 144, 180, 192, 256, 288,
)  # fmt: skip

# What a driver may keep for itself of a class. GDDR cards with ECC give 1/16 (6.25 %) to it and the driver takes a
# little more: a P40 reports 22919 MiB of 24576 (6.74 %), an R9700 30576 of 32768 (6.69 %).
_SHORTFALL = 0.07
# The least share of its class that a card has: what a tag promises at least.
LEAST_SHARE = 1 - _SHORTFALL


def vram_class_gb(memory_bytes: int) -> int | None:
    """The class of a GPU, in GB as cards are sold (GiB in truth).

    It is the smallest class that holds the reported size, when the size is at most 7 % below it; otherwise the
    largest class below: a job that asks for N GB must never land where clearly less is.

    Args:
        memory_bytes: what the driver reports as total.

    Returns:
        The class; None below the smallest one.
    """
    reported = memory_bytes / GIB
    below = None
    for size in CLASSES_GB:
        if size >= reported:
            return size if reported >= size * (1 - _SHORTFALL) else below
        below = size
    return below


def vram_classes_gb(memory_bytes: int) -> tuple[int, ...]:
    """Every class up to the GPU's own, ascending; empty below the smallest one."""
    own = vram_class_gb(memory_bytes)
    return tuple(size for size in CLASSES_GB if own is not None and size <= own)
