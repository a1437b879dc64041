"""An amdgpu driver that refuses to read files, and remembers which it was asked for."""

from __future__ import annotations

import os

import pytest
from gpurig.runner.exporter.devices import amd_files

from standins.amd_box import AmdBox

# What the driver tells of a card whatever state it is in: its own accounts, and the kernel's about its power.
SAFE = frozenset({"mem_info_vram_used", "mem_info_gtt_used", "power/runtime_status"})


class Refusals:
    """What the driver of a box's first card answers.

    Attributes:
        asked: the card's files that were asked for, by their names in `amd_box.FILES`.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, box: AmdBox) -> None:
        """Stand between the source and the box."""
        self.asked: list[str] = []
        self._refused: dict[str, int] = {}
        self._real = amd_files.read_bytes
        self._places = [
            str(box.root / "sys/bus/pci/devices" / box.cards[0].address),
            str(box.cards[0].folder),
        ]
        self._hwmon = f"hwmon/{box.cards[0].hwmon.name}/"
        monkeypatch.setattr(amd_files, "read_bytes", self._read)

    def refuse(self, number: int, *names: str) -> None:
        """Refuse these files, and no others, with the error of that number."""
        self._refused = dict.fromkeys(names, number)

    def _read(self, path: str) -> bytes:
        for place in self._places:
            if path.startswith(f"{place}/"):
                name = path.removeprefix(f"{place}/").replace(self._hwmon, "hwmon/")
                self.asked.append(name)
                if name in self._refused:
                    raise OSError(self._refused[name], os.strerror(self._refused[name]))
        return self._real(path)
