"""Models as a layer of an image: from names to the files that are copied to /opt/gpurig/models.

Nothing is read into memory: a model has gigabytes. gpurig.images.baking puts them into an image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from gpurig.common.errors import InputError
from gpurig.common.files import sha256_file
from gpurig.common.gguf import read_gguf
from gpurig.common.models.licenses import check_license
from gpurig.common.models.origin import Origin, origin_path
from gpurig.common.models.resolving import IMAGE_FOLDER, Found, Search


@dataclass(frozen=True)
class LayerFile:
    """One file of the layer.

    Attributes:
        target: its name in the image's folder of models.
        path: where it lies now.
        sha256: of a model's file, computed now; of its record too.
        license: of a model; "" where nobody knows it.
        source: where a model came from, with the revision; "" where there is no record of it.
    """

    target: PurePosixPath
    path: Path
    sha256: str
    size_bytes: int
    license: str = ""
    source: str = ""


@dataclass(frozen=True)
class ModelLayer:
    """The models of an image.

    Attributes:
        folder: where they go in the image.
        files: models and the records of their pulls, by name.
        notes: what the user should be told of their licenses.
    """

    folder: PurePosixPath
    files: tuple[LayerFile, ...]
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over names and contents, hexadecimal: the same models are the same layer."""
        lines = "".join(f"{file.sha256}  {file.target}\n" for file in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def models(self) -> dict[str, str]:
        """SHA-256 of the models' files by their names, as an image's label has them."""
        return {str(file.target): file.sha256 for file in self.files if file.target.suffix == ".gguf"}

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files)


def model_layer(names: Iterable[str], search: Search, *, allowed_licenses: Collection[str] = ()) -> ModelLayer:
    """The layer with the models of these names.

    Args:
        names: as suites have them; one that gpurig carries itself is in every image already, and is left out.
        search: where they are looked for, and what fetches the others.
        allowed_licenses: names that the user accepts: an image that is pushed gives its models to others.

    Raises:
        InputError: a damaged model, or one whose license is not accepted.
        PrerequisiteError: a name that nobody has. Whatever fetching raises.
    """
    files: dict[PurePosixPath, LayerFile] = {}
    notes: list[str] = []
    for name in names:
        found = search.find(name)
        if found.kind == "bundled":
            continue
        license_ = _license(found)
        notes += _checked(found, license_, allowed_licenses)
        parts = [_layer_file(path, license_) for path in found.files]
        record = origin_path(found.files[0].parent, name)
        if found.origin is not None and _is_of(found.origin, parts):
            source = found.origin.source + (f"@{found.origin.revision}" if found.origin.revision else "")
            parts = [*(replace(part, source=source) for part in parts), _layer_file(record)]
        files |= {part.target: part for part in parts}
    return ModelLayer(
        PurePosixPath(IMAGE_FOLDER),
        tuple(files[target] for target in sorted(files)),
        tuple(dict.fromkeys(notes)),
    )


def _license(found: Found) -> str:
    """What the model's record says, else its header; reading all headers finds a damaged file."""
    headers = [read_gguf(path) for path in found.files]
    said = headers[0].metadata.get("general.license")
    return (found.origin.license if found.origin else "") or (said if isinstance(said, str) else "")


def _checked(found: Found, license_: str, allowed: Collection[str]) -> tuple[str, ...]:
    try:
        return check_license(license_, model=found.name, allowed=allowed)
    except InputError as error:
        raise InputError(
            f"{error.message}, and an image that is pushed gives the model to others", hint=error.hint
        ) from error


def _layer_file(path: Path, license_: str = "") -> LayerFile:
    return LayerFile(PurePosixPath(path.name), path, sha256_file(path), path.stat().st_size, license_)


def _is_of(origin: Origin, parts: list[LayerFile]) -> bool:
    """Whether the record is of these very files: one of a file that was replaced would be a lie in the image."""
    return [(pin.file, pin.sha256) for pin in origin.files] == [(part.target.name, part.sha256) for part in parts]
