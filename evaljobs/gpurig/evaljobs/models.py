"""Model files: from the name in a suite to a GGUF file whose header is sound."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from gpurig.common.errors import InputError
from gpurig.common.files import sha256_file
from gpurig.common.gguf import Gguf, read_gguf
from gpurig.common.models.names import SUFFIX, part_files
from gpurig.common.models.resolving import Found, Search
from gpurig.evaljobs.records import AdapterRef, ModelRef


@dataclass(frozen=True)
class AdapterFile:
    """A LoRA adapter that was found, hashed and whose header was read."""

    ref: AdapterRef
    path: Path
    gguf: Gguf


@dataclass(frozen=True)
class ModelFile:
    """A model that was found, hashed and whose header was read.

    Attributes:
        path: its file, or the first of its parts: llama.cpp finds the others.
        adapters: that are loaded with it; a request says which of them it wants, and how strongly.
    """

    ref: ModelRef
    path: Path
    gguf: Gguf
    adapters: tuple[AdapterFile, ...] = ()


def find_model(name: str, *, search: Search, suite_folder: Path) -> Found:
    """The files that a suite means by `name`.

    A path (it holds a slash or ends with .gguf) is relative to the suite's folder, then to the working directory.
    A name is looked for in the places of `search`.

    Raises:
        InputError: a path at which there is no file.
        PrerequisiteError: a name that no place has: another runner may have it.
    """
    if "/" not in name and not name.endswith(SUFFIX):
        return search.find(name)
    candidates = [suite_folder / name, Path(name)]
    candidates += [place.folder / name for place in search.places if "/" not in name]
    for candidate in candidates:
        files = tuple(candidate.with_name(file) for file in part_files(candidate.name))
        if all(file.is_file() for file in files):
            return Found(name, files, "path")
    looked = ", ".join(dict.fromkeys(str(candidate) for candidate in candidates))
    raise InputError(f'there is no model file "{name}"; looked at {looked}', hint="correct the path")


def open_model(name: str, *, search: Search, suite_folder: Path) -> ModelFile:
    """Find a model, hash it and read its header.

    Raises:
        InputError: there is no such file, or it is damaged. PrerequisiteError: this machine lacks it.
    """
    found = find_model(name, search=search, suite_folder=suite_folder)
    headers = [read_gguf(file) for file in found.files]
    sha256 = model_sha256([sha256_file(file) for file in found.files])
    ref = ModelRef(
        name=name,
        file=found.files[0].name,
        sha256=sha256,
        size_bytes=sum(header.size_bytes for header in headers),
        place=found.kind,
        source=_source(found, sha256),
        others=tuple(str(path) for path in found.others),
    )
    return ModelFile(ref, found.files[0], headers[0])


def model_sha256(parts: list[str]) -> str:
    """A model's SHA-256: its file's; of a split one, over its parts' hashes in hexadecimal, one a line, in order."""
    if len(parts) == 1:
        return parts[0]
    return hashlib.sha256("".join(f"{part}\n" for part in parts).encode()).hexdigest()


def _source(found: Found, sha256: str) -> str:
    """Where a pull brought it from, if the file is still the one that was pulled."""
    if found.kind == "bundled":
        return "bundled"
    origin = found.origin
    if origin is None or model_sha256([file.sha256 for file in origin.files]) != sha256:
        return ""
    at = f"@{origin.revision}"
    return origin.source if not origin.revision or origin.source.endswith(at) else origin.source.partition("@")[0] + at
