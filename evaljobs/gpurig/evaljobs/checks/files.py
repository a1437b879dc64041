"""Files that checks read beside the suite: schemas, documents to retrieve."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from gpurig.common.errors import InputError

# What a check may read: more is a mistake in the suite, or a link to somewhere else.
MAX_FILES = 10_000


def digest_of(path: Path) -> str:
    """SHA-256 over a file, or over a folder's files and their names; "" where there is nothing.

    Raises:
        InputError: a folder with more than `MAX_FILES` files.
    """
    if path.is_dir():
        parts = [f"{file.relative_to(path)}\0{digest_of(file)}" for file in files_below(path)]
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
    if not path.is_file():
        return ""
    state = path.stat()
    return _digest(path, state.st_mtime_ns, state.st_size)


def files_below(folder: Path) -> list[Path]:
    """The files of a folder and those below it, by name; hidden ones and links are left out.

    Raises:
        InputError: more than `MAX_FILES`.
    """
    found: list[Path] = []
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if not hidden and file.is_file() and not file.is_symlink():
            found.append(file)
        if len(found) > MAX_FILES:
            raise InputError(f"{folder} holds more than {MAX_FILES} files", hint="name a smaller folder in the check")
    return found


@functools.lru_cache(maxsize=MAX_FILES)
def _digest(path: Path, changed: int, size: int) -> str:  # noqa: ARG001 - they tell when it has to be read again
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
