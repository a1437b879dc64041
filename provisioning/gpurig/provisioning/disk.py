"""The files of a box, behind an interface small enough that tests can make every call fail."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

from gpurig.common.errors import PrerequisiteError
from gpurig.common.files import make_directory, read_problem, write_atomic, write_problem


class Disk(Protocol):
    """What provisioning does with files; every method raises PrerequisiteError where the system refuses."""

    def read(self, path: Path) -> str | None:
        """The text of a file; None where there is none."""

    def write(self, path: Path, text: str, *, mode: int) -> None:
        """Replace a file whole."""

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder with all in it; nothing where there is none."""

    def make_directory(self, path: Path, *, mode: int) -> bool:
        """Make a folder and its parents; whether it was missing."""

    def remove_empty(self, path: Path) -> None:
        """Remove a folder if it is there and empty."""


class LocalDisk:
    """The machine's own file system."""

    def read(self, path: Path) -> str | None:
        """The text of a file; None where there is none."""
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise read_problem(path, error) from error

    def write(self, path: Path, text: str, *, mode: int) -> None:
        """Replace a file whole."""
        write_atomic(path, text, mode=mode)

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder with all in it; nothing where there is none."""
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise _remove_problem(path, error) from error

    def make_directory(self, path: Path, *, mode: int) -> bool:
        """Make a folder and its parents; whether it was missing."""
        try:
            missing = not path.is_dir()
        except OSError as error:
            raise write_problem(path, error) from error
        make_directory(path, mode)
        return missing

    def remove_empty(self, path: Path) -> None:
        """Remove a folder if it is there and empty."""
        try:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        except OSError as error:
            raise _remove_problem(path, error) from error


def _remove_problem(path: Path, error: OSError) -> PrerequisiteError:
    return PrerequisiteError(
        f"cannot remove {path}: {error.strerror or type(error).__name__}",
        hint="run it as a user who may write there",
    )
