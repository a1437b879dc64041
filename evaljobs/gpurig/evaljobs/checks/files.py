"""Files that checks read beside the suite: schemas, documents to retrieve."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gpurig.common.errors import InputError

# What a check may read: more is a mistake in the suite, or a link to somewhere else.
MAX_FILES = 10_000


class Digests:
    """What is in files and folders; each is looked at once, because one run sees one state of them."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """SHA-256 over a file, or over a folder's files and their names; "" where there is nothing.

        Raises:
            InputError: a folder with more than `MAX_FILES` files.
        """
        if path not in self._known:
            self._known[path] = self._folder(path) if path.is_dir() else _file(path)
        return self._known[path]

    def _folder(self, path: Path) -> str:
        parts = [f"{file.relative_to(path)}\0{self.of(file)}" for file in files_below(path)]
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


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


def _file(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
