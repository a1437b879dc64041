"""AMD's own libraries, for what sysfs does not tell: the product's name, and memory on odd kernels. Never required."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gpurig.provisioning.host import pci_address


@dataclass(frozen=True)
class LibraryCard:
    """A card as the library knows it.

    Attributes:
        name: the product's name, "" where it has none.
        memory_bytes: the whole card's memory, None where unknown.
    """

    name: str
    memory_bytes: int | None


class AmdLibrary(Protocol):
    """Something that knows AMD cards by PCI address."""

    def cards(self) -> Mapping[str, LibraryCard]:
        """The cards; nothing where the library is missing or fails."""


@dataclass(frozen=True)
class NoAmdLibrary:
    """No library: what a recorded machine has."""

    def cards(self) -> Mapping[str, LibraryCard]:
        """Nothing."""
        return {}


class InstalledAmdLibrary:
    """amdsmi (ROCm's own Python package), else pyrsmi, whichever is installed and works."""

    def cards(self) -> Mapping[str, LibraryCard]:
        """The cards; nothing where neither library is there or works."""
        for name, read in (("amdsmi", _read_amdsmi), ("pyrsmi.rocml", _read_pyrsmi)):
            if importlib.util.find_spec(name.partition(".")[0]) is None:
                continue
            # `import amdsmi` without its shared library raises KeyError, pyrsmi OSError or RuntimeError; both are
            # optional, so that whatever they raise means only that they have nothing to add.
            with contextlib.suppress(Exception):
                return read(importlib.import_module(name))
        return {}


def _read_amdsmi(amdsmi: Any) -> Mapping[str, LibraryCard]:
    amdsmi.amdsmi_init()
    try:
        cards = {}
        for handle in amdsmi.amdsmi_get_processor_handles():
            address = pci_address(str(amdsmi.amdsmi_get_gpu_device_bdf(handle)))
            name, memory = "", None
            with contextlib.suppress(amdsmi.AmdSmiException):
                name = _known(amdsmi.amdsmi_get_gpu_asic_info(handle).get("market_name"))
            with contextlib.suppress(amdsmi.AmdSmiException):
                memory = int(amdsmi.amdsmi_get_gpu_memory_total(handle, amdsmi.AmdSmiMemoryType.VRAM)) or None
            cards[address] = LibraryCard(name, memory)
        return cards
    finally:
        amdsmi.amdsmi_shut_down()


def _read_pyrsmi(rocml: Any) -> Mapping[str, LibraryCard]:
    rocml.smi_initialize()
    try:
        cards = {}
        for index in range(rocml.smi_get_device_count()):
            location = int(rocml.smi_get_device_pci_id(index))
            # rocm_smi.h, rsmi_dev_pci_id_get(): domain in bits 32-63, bus 8-15, device 3-7, function 0-2.
            address = f"{location >> 32:04x}:{location >> 8 & 0xFF:02x}:{location >> 3 & 0x1F:02x}.{location & 7}"
            memory = int(rocml.smi_get_device_memory_total(index))
            cards[address] = LibraryCard(_known(rocml.smi_get_device_name(index)), memory if memory > 0 else None)
        return cards
    finally:
        rocml.smi_shutdown()


def _known(name: object) -> str:
    """A product's name; "" for what the libraries say instead of one."""
    text = (name.decode(errors="replace") if isinstance(name, bytes) else str(name or "")).strip()
    return "" if text.upper() in {"N/A", "AMD RADEON GRAPHICS"} or text.startswith("0x") else text
