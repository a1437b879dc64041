"""Which architectures' code a library carries for NVIDIA's GPUs, without NVIDIA's cuobjdump.

nvcc puts each file's code into a "fat binary": a header, then an entry an architecture, of machine code or of PTX,
which a driver would have to compile. NVIDIA has not documented the layout: it was compared with what cuobjdump tells of
nvcc 12.4's programs and libraries.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_MAGIC = struct.pack("<I", 0xBA55ED50)
# After the magic number: version, size of this header, size of all entries.
_HEADER = struct.Struct("<4sHHQ")
# Kind, attributes, size of this header, size of what follows; sizes and versions that do not matter here; architecture.
_ENTRY = struct.Struct("<HHIQIIHHI")
_KINDS = {1: "ptx", 2: "elf"}


def device_code(library: bytes) -> Iterator[tuple[str, int]]:
    """Kind ("elf", "ptx") and compute capability, ten times, of every entry of every fat binary in a library.

    Raises:
        ValueError: an entry of a kind that is not known, or one that leads out of its fat binary.
    """
    start = library.find(_MAGIC)
    while start >= 0:
        _, _, size, length = _HEADER.unpack_from(library, start)
        place, end = start + size, start + size + length
        while place < end:
            kind, _, header, content, _, _, _, _, arch = _ENTRY.unpack_from(library, place)
            place += header + content
            if kind not in _KINDS or place > end:
                raise ValueError(f"no fat binary at byte {start}")
            yield _KINDS[kind], arch
        start = library.find(_MAGIC, end)
