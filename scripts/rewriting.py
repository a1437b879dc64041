"""What the scripts that `make docs` runs have in common."""

from __future__ import annotations

from pathlib import Path


def write_if_changed(document: Path, text: str) -> None:
    """Write the text where the file does not hold it yet, and say so."""
    if not document.exists() or document.read_text(encoding="utf-8") != text:
        document.write_text(text, encoding="utf-8")
        print(f"wrote {document.name}")
