"""The record beside a pulled model: where it came from, and the hashes that a later pull is held against.

`NAME.origin.json` lies beside NAME.gguf (docs/models.md has its fields). A file's hash is trusted on first use where no
catalogue knows it: this record pins it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpurig.common.errors import InputError
from gpurig.common.files import read_text, write_atomic

_VERSION = 1


@dataclass(frozen=True)
class PinnedFile:
    """One file of a model, by its name in the folder."""

    file: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Origin:
    """Where a model came from.

    Attributes:
        source: as `gpurig models pull` takes it, for example "hf:Qwen/Qwen3-4B-GGUF/Qwen3-4B-Q4_K_M.gguf".
        revision: the commit that was pulled; "" where the source has none.
        license: SPDX identifier or vendor's name; "" where nobody knows it.
        pulled: when, ISO 8601 in UTC.
    """

    source: str
    revision: str
    license: str
    pulled: str
    files: tuple[PinnedFile, ...]

    def pin(self, file: str) -> PinnedFile | None:
        """What is pinned for a file of that name."""
        return next((pinned for pinned in self.files if pinned.file == file), None)


def origin_path(folder: Path, name: str) -> Path:
    """Where the record of the model `name` lies."""
    return folder / f"{name}.origin.json"


def write_origin(folder: Path, name: str, origin: Origin) -> None:
    """Write the record.

    Raises:
        PrerequisiteError: it cannot be written.
    """
    write_atomic(origin_path(folder, name), json.dumps({"version": _VERSION, **asdict(origin)}, indent=2) + "\n")


def read_origin(folder: Path, name: str) -> Origin | None:
    """The record of the model `name`; None where there is none.

    Raises:
        InputError: it is damaged. PrerequisiteError: no permission.
    """
    path = origin_path(folder, name)
    if not path.is_file():
        return None
    try:
        document = json.loads(read_text(path))
        return _origin(document)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged, so nobody knows which bytes were pulled",
            hint="remove it; the next pull pins what it gets",
        ) from error


def _origin(document: Any) -> Origin:
    if not isinstance(document, dict) or document["version"] != _VERSION:
        raise ValueError("another version")
    words = {key: document[key] for key in ("source", "revision", "license", "pulled")}
    files = tuple(PinnedFile(entry["file"], entry["sha256"], entry["size_bytes"]) for entry in document["files"])
    texts = [*words.values(), *(text for file in files for text in (file.file, file.sha256))]
    if not all(isinstance(text, str) for text in texts) or not all(type(file.size_bytes) is int for file in files):
        raise TypeError("a value of another type")
    return Origin(**words, files=files)
