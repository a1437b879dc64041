"""The texts that models read here: the user's, or the built-in ones (docs/models.md says what is in them)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpurig.common.assets import find_asset
from gpurig.common.files import read_text


@dataclass(frozen=True)
class Text:
    """A text and what it is called in records."""

    name: str
    content: str

    @property
    def sha256(self) -> str:
        """Of its UTF-8 bytes."""
        return hashlib.sha256(self.content.encode()).hexdigest()


def load_text(path: Path | None, *, built_in: Literal["calibration", "comparison"]) -> Text:
    """The file `path`, or a built-in text where None.

    Raises:
        InputError: it is missing, or not UTF-8. PrerequisiteError: no permission, or the installation lacks its own.
    """
    if path is not None:
        return Text(path.name, read_text(path))
    return Text(f"built-in {built_in}", read_text(find_asset("gpurig.evaljobs", f"texts/{built_in}.txt")))
