"""The amdgpu driver's text files: reading them, and what their lines mean."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

# A file of a driver whose firmware hangs takes seconds; one such card must not hold up the others.
PATIENCE_S = 2.0
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}
# A sysfs file has a page at most; a list of bad memory pages, or a process' table, is longer.
_MOST_BYTES = 256 * 1024

_DPM_LEVEL = re.compile(r"^\s*(\w+):\s*(\d{1,7})\s*mhz\s*(\*?)", re.IGNORECASE | re.MULTILINE)
_RAS_COUNT = re.compile(r"^(ue|ce):\s*(\d{1,20})\s*$", re.MULTILINE)
_BAD_PAGE = re.compile(r"^0x[0-9a-f]+ : 0x[0-9a-f]+ : ([RPF])$", re.MULTILINE | re.IGNORECASE)
_SPEED = re.compile(r"(\d{1,4}(?:\.\d+)?) GT/s")
# pci.h, PCI_SPEED2STR: transfers a lane and second of each generation.
_GENERATIONS = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6}


def read_bytes(path: str) -> bytes:
    """A file's content, at most 256 KiB.

    Raises:
        OSError: it is not there, or the driver refuses: EPERM during a reset, EBUSY, ENODEV, EIO …
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces, left = [], _MOST_BYTES
        while left > 0 and (piece := os.read(descriptor, min(left, 65536))):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def read_text(path: str) -> str | None:
    """A file's text without surrounding white space; None where it cannot be read."""
    try:
        return read_bytes(path).decode("ascii", errors="replace").strip(" \t\r\n\0")
    except OSError:
        return None


def list_names(folder: str) -> list[str]:
    """What lies in a folder, sorted; nothing where it cannot be listed."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - read each second; no Path is needed
    except OSError:
        return []


def to_number(text: str | None) -> int | None:
    """A decimal number; None for anything else, and for one that no counter reaches."""
    if text is None or len(text) > 20:
        return None
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdecimal() else None


def read_number(path: str) -> int | None:
    """The number that a file holds; None where there is none."""
    return to_number(read_text(path))


def read_amount(path: str) -> int | None:
    """The same of what cannot be below 0."""
    return _amount(read_number(path))


def _amount(number: int | None) -> int | None:
    return number if number is not None and number >= 0 else None


class SlowDriver(Exception):  # noqa: N818 - a state of the card; `SourceError` is the error
    """A file took too long to read.

    Attributes:
        took_s: how long.
    """

    def __init__(self, took_s: float) -> None:
        """Take the seconds."""
        super().__init__(f"{took_s:.0f} seconds")
        self.took_s = took_s


class Folder:
    """The files of one device, with how the driver answered since `ask` began.

    Attributes:
        answered: files that were read.
        refused: errors of files that are there and cannot be read, by number.
    """

    def __init__(self, path: str, monotonic: Callable[[], float]) -> None:
        """Take the folder and the clock."""
        self.path = path
        self._monotonic = monotonic
        self.ask()

    def ask(self) -> None:
        """Begin to count anew."""
        self.answered = 0
        self.refused: dict[int, int] = {}

    def bytes(self, name: str) -> bytes | None:
        """A file's content; None where it cannot be read.

        Raises:
            SlowDriver: it took longer than `PATIENCE_S`.
        """
        before = self._monotonic()
        content = None
        try:
            content = read_bytes(f"{self.path}/{name}")
            self.answered += 1
        except OSError as error:
            number = error.errno or errno.EIO
            if number not in _NOT_THERE:
                self.refused[number] = self.refused.get(number, 0) + 1
        took_s = self._monotonic() - before
        if took_s > PATIENCE_S:
            raise SlowDriver(took_s)
        return content

    def text(self, name: str) -> str | None:
        """A file's text without surrounding white space; None where it cannot be read."""
        content = self.bytes(name)
        return None if content is None else content.decode("ascii", errors="replace").strip(" \t\r\n\0")

    def number(self, name: str) -> int | None:
        """The number that a file holds; None where there is none."""
        return to_number(self.text(name))

    def amount(self, name: str) -> int | None:
        """The same of what cannot be below 0."""
        return _amount(self.number(name))

    def names(self, name: str = "") -> list[str]:
        """What lies in the folder or one below it, sorted; nothing where it cannot be listed."""
        return list_names(f"{self.path}/{name}")


def dpm_clocks(text: str | None) -> tuple[float | None, float | None]:
    """The clock now and the highest that can be set, in hertz, of a pp_dpm_* file.

    Its lines are levels, `1: 2660Mhz *`, with a star at the one in force; level `S` is deep sleep.
    https://docs.kernel.org/gpu/amdgpu/driver-misc.html
    """
    levels = _DPM_LEVEL.findall(text or "")
    now = next((float(mhz) * 1e6 for _, mhz, star in levels if star), None)
    highest = max((float(mhz) * 1e6 for name, mhz, _ in levels if name.isdecimal()), default=None)
    return now, highest


def pcie_generation(text: str | None) -> int | None:
    """The PCIe generation of a link speed, "16.0 GT/s PCIe"; None for "Unknown"."""
    found = _SPEED.match(text or "")
    return _GENERATIONS.get(float(found[1])) if found else None


def ras_counts(text: str | None) -> dict[str, int]:
    """Errors of one unit of the card, by kind, of a ras/*_err_count file: `ue: 0` and `ce: 1`.

    https://docs.kernel.org/gpu/amdgpu/ras.html
    """
    names = {"ue": "uncorrected", "ce": "corrected"}
    return {names[kind]: int(count) for kind, count in _RAS_COUNT.findall(text or "")}


def bad_pages(text: str | None) -> tuple[int, int] | None:
    """Memory pages that are out of use, and those that will be after a reset, of ras/gpu_vram_bad_pages.

    Each line is a page: its number, its size, and R for reserved, P for pending, F for one that could not be reserved.
    """
    if text is None:
        return None
    flags = [flag.upper() for flag in _BAD_PAGE.findall(text)]
    pending = flags.count("P")
    return len(flags) - pending, pending


def slot_folder(device: Path) -> Path:
    """The PCI device whose link is the one to the slot: the card's own switch where it has one.

    From Navi on a card is a switch with the GPU behind it, and the GPU's own link is always at full width. The ports of
    that switch are AMD's graphics division's (0x1002); those of a processor are not (0x1022).
    """
    try:
        here = device.resolve()
    except OSError:
        return device
    while read_text(f"{here.parent}/vendor") == "0x1002" and (read_text(f"{here.parent}/class") or "").startswith(
        "0x0604"
    ):
        here = here.parent
    return here
