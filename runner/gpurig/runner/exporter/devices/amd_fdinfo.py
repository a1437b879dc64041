"""What a process' open file of an AMD GPU tells: /proc/<pid>/fdinfo/<fd>.

Format: https://docs.kernel.org/gpu/drm-usage-stats.html; keys of amdgpu:
https://docs.kernel.org/gpu/amdgpu/driver-misc.html. A quantity is in bytes, KiB or MiB; kernels before 6.13 write
`drm-memory-gtt: ` with a space in the key. Kernels before 5.19 have another format, which is not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpurig.provisioning.host import pci_address

# What works on what jobs compute; copying (dma) and video (dec, enc, jpeg, vpe) go on beside it.
_WORK = {b"gfx", b"compute"}
# The amount that lies in a kind of memory now: the newer word, the older one, and what is allocated, wherever it lies.
_HELD = (b"drm-resident-", b"drm-memory-", b"drm-total-")

_LINE = re.compile(rb"^([a-z][a-z0-9_-]{0,63}):[ \t]*([^\r\n]{0,100}?)[ \t]*$", re.MULTILINE)
_AMOUNT = re.compile(rb"(\d{1,20})(?: (KiB|MiB))?")
_BUSY = re.compile(rb"(\d{1,20}) ns")
_UNITS = {b"": 1, b"KiB": 1024, b"MiB": 1024**2}


@dataclass(frozen=True)
class DrmClient:
    """An open file of a GPU, which several descriptors and processes may share.

    Attributes:
        pci: the GPU's PCI address.
        number: the client's, unique on that GPU.
        vram_bytes: what it holds of the GPU's own memory; None where the kernel does not tell.
        gtt_bytes: what it holds of the system's memory that the GPU sees.
        busy_ns: for how long its work kept the GPU busy since the file was opened; work that the process hands to the
            GPU itself, as ROCm does, is not counted.
    """

    pci: str
    number: int
    vram_bytes: int | None
    gtt_bytes: int | None
    busy_ns: int


def parse_fdinfo(data: bytes) -> DrmClient | None:
    """The client, of amdgpu alone: other drivers and other kinds of file are None, and so is what is no such text."""
    if b"drm-driver:" not in data:
        return None
    # The first of a key counts: nobody but the kernel writes here.
    lines = dict(reversed(_LINE.findall(data)))
    address = pci_address(lines.get(b"drm-pdev", b"").decode("ascii", errors="replace"))
    number = lines.get(b"drm-client-id", b"")
    if lines.get(b"drm-driver") != b"amdgpu" or not address or not re.fullmatch(rb"\d{1,20}", number):
        return None
    return DrmClient(
        pci=address,
        number=int(number),
        vram_bytes=_held(lines, b"vram"),
        gtt_bytes=_held(lines, b"gtt"),
        busy_ns=sum(_busy_ns(lines, engine) for engine in _WORK),
    )


def _held(lines: dict[bytes, bytes], kind: bytes) -> int | None:
    for word in _HELD:
        found = _AMOUNT.fullmatch(lines.get(word + kind, b""))
        if found:
            return int(found[1]) * _UNITS[found[2] or b""]
    return None


def _busy_ns(lines: dict[bytes, bytes], engine: bytes) -> int:
    """The driver leaves out an engine that the client never used."""
    found = _BUSY.fullmatch(lines.get(b"drm-engine-" + engine, b""))
    return int(found[1]) if found else 0
