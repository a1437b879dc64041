"""The header of a model, wherever it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gpurig.common.errors import InputError
from gpurig.common.gguf import Gguf, read_gguf


@dataclass(frozen=True)
class Found:
    """A model's header.

    Attributes:
        name: for a person.
        gguf: of a split model with the tensors of all parts.
        path: of its first file; None where it is not on this machine.
    """

    name: str
    gguf: Gguf
    path: Path | None


def find_header(model: str, *, root: Path, instance: str) -> Found:
    path = Path(model)
    if not path.is_file():
        raise InputError(f"there is no file {model}", hint="check the path")
    return Found(path.stem, read_gguf(path), path)
