"""What goes to a person's terminal: hostile text made harmless, tables that fit."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def harmless(text: str, *, newlines: bool = False) -> str:
    r"""`text` without anything a terminal obeys: control characters and bidirectional overrides become `\xNN`.

    Args:
        text: what somebody else wrote: a model, a server, a file name.
        newlines: keep line ends and tabs.
    """
    kept = {"\n", "\t"} if newlines else set()
    # Nearly every text: what is printable holds none of them, and asking for each character takes 30 times as long.
    if (text.replace("\n", "").replace("\t", "") if newlines else text).isprintable():
        return text
    return "".join(
        character
        if character in kept or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        # A surrogate or an override shows as its code, so that nothing disappears.
        else f"\\x{ord(character):02x}"
        for character in text
    )


def shorten(text: str, width: int) -> str:
    """`text` in at most `width` characters, its middle left out."""
    if len(text) <= width:
        return text
    if width <= 1:
        return text[:width]
    head = (width - 1 + 1) // 2
    return text[:head] + "…" + text[len(text) - (width - 1 - head) :]


def size_text(size_bytes: float) -> str:
    """A size for a person, in the decimal units that downloads and disks are sold in: "4.68 GB"."""
    value, unit = float(size_bytes), "B"
    for bigger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, bigger
    return f"{value:.0f} {unit}" if unit in {"B", "kB"} or value >= 99.95 else f"{value:.3g} {unit}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, width: int = 80) -> str:
    """Rows in aligned columns, at most `width` wide: the widest column gives way.

    Cells are made harmless; a column whose cells all look like numbers is aligned to the right.
    """
    cells = [[harmless(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(header))]
    gap = 2
    while sum(widths) + gap * (len(widths) - 1) > width and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1
    right = [
        bool(rows) and all(row[index].rstrip(" %").replace(".", "").replace("-", "").isdigit() for row in cells[1:])
        for index in range(len(header))
    ]
    lines = []
    for row in cells:
        shown = [
            shorten(cell, size).rjust(size) if to_right else shorten(cell, size).ljust(size)
            for cell, size, to_right in zip(row, widths, right, strict=True)
        ]
        lines.append((" " * gap).join(shown).rstrip())
    return "\n".join(lines)
