"""Build contexts: the files of an image as one tar in memory, the same bytes from a wheel and from a checkout.

The paths inside are the repository's own, so that `docker build -f Dockerfile.cpu .` in a checkout builds the same.
"""

from __future__ import annotations

import importlib.util
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gpurig.common.assets import find_asset
from gpurig.common.errors import PrerequisiteError
from gpurig.common.files import read_bytes

_FILE_MODE = 0o644
_FOLDER_MODE = 0o755


@dataclass(frozen=True)
class ContextFile:
    """One file of a build context.

    Attributes:
        path: its place in the context, relative, with slashes.
        data: its content.
    """

    path: str
    data: bytes


def asset_file(package: str, name: str, *, path: str = "") -> ContextFile:
    """An asset under the name that it has in the repository.

    Args:
        package: the package that owns it.
        name: as find_asset takes it.
        path: its place in the context, where that is another than `name`.

    Raises:
        PrerequisiteError: this installation lacks it.
    """
    return ContextFile(path=path or name, data=read_bytes(find_asset(package, name)))


def package_files(package: str, *, assets: bool) -> tuple[ContextFile, ...]:
    """The files of one of our packages, never caches, editors' leavings or hidden files.

    Args:
        package: for example "gpurig.evaljobs".
        assets: with the package's own `assets` folder; those of its subpackages always come along.

    Raises:
        PrerequisiteError: no such package in this installation.
    """
    root = _package_folder(package)
    place = PurePosixPath(package.rpartition(".")[2], *package.split("."))
    chosen = [
        path.relative_to(root)
        for path in root.rglob("*")
        if path.is_file() and _belongs(path.relative_to(root), assets=assets)
    ]
    return tuple(
        ContextFile(path=str(place / path.as_posix()), data=read_bytes(root / path)) for path in sorted(chosen)
    )


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        return Path(folder)
    raise PrerequisiteError(f"the package {package} is missing from this installation", hint="install gpurig again")


def _belongs(relative: Path, *, assets: bool) -> bool:
    if "__pycache__" in relative.parts or any(
        part.startswith((".", "#")) or part.endswith("~") for part in relative.parts
    ):
        return False
    return assets or relative.parts[0] != "assets"


def pack(files: Iterable[ContextFile], *, folders: Iterable[str] = ()) -> bytes:
    """An uncompressed tar with sorted entries, no times, no owners: equal files give equal bytes.

    Args:
        files: what to pack.
        folders: folders that must be there even where no file lies in them, because a Dockerfile copies them.

    Raises:
        ValueError: two files with one path, or a path that leaves the context.
    """
    by_path: dict[str, ContextFile] = {}
    for file in files:
        parts = PurePosixPath(file.path).parts
        if file.path in by_path or not parts or parts[0] == "/" or ".." in parts:
            raise ValueError(f"not a path for a build context: {file.path!r}")
        by_path[file.path] = file
    needed = {str(parent) for path in by_path for parent in PurePosixPath(path).parents}
    for folder in folders:
        needed |= {folder, *(str(parent) for parent in PurePosixPath(folder).parents)}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for folder in sorted(needed - {"."}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, _FOLDER_MODE
            archive.addfile(entry)
        for path in sorted(by_path):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(by_path[path].data), _FILE_MODE
            archive.addfile(entry, io.BytesIO(by_path[path].data))
    return stream.getvalue()
