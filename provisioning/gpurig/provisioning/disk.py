"""The files of a box, behind an interface small enough that tests can make every call fail."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from gpurig.common.errors import PrerequisiteError
from gpurig.common.files import make_directory, read_problem, try_lock, write_atomic, write_problem


class Disk(Protocol):
    """What provisioning does with files; every method raises PrerequisiteError where the system refuses."""

    def read(self, path: Path) -> str | None:
        """The text of a file; None where there is none."""

    def write(self, path: Path, text: str, *, mode: int) -> None:
        """Replace a file whole."""

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder with all in it; nothing where there is none."""

    def missing(self, path: Path) -> tuple[Path, ...]:
        """Which of a folder and its parents are not there, the innermost first."""

    def names(self, path: Path) -> tuple[str, ...]:
        """What a folder holds, in order; nothing where there is none."""

    def make_directory(self, path: Path, *, mode: int) -> None:
        """Make a folder and its parents."""

    def lock(self, path: Path) -> AbstractContextManager[None]:
        """Keep a folder to ourselves; PrerequisiteError where another process has it."""

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

    def missing(self, path: Path) -> tuple[Path, ...]:
        """Which of a folder and its parents are not there, the innermost first."""
        try:
            return tuple(folder for folder in (path, *path.parents) if not folder.exists())
        except OSError as error:
            raise write_problem(path, error) from error

    def names(self, path: Path) -> tuple[str, ...]:
        """What a folder holds, in order; nothing where there is none."""
        try:
            return tuple(sorted(one.name for one in path.iterdir()))
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise read_problem(path, error) from error

    def make_directory(self, path: Path, *, mode: int) -> None:
        """Make a folder and its parents."""
        make_directory(path, mode)

    @contextlib.contextmanager
    def lock(self, path: Path) -> Iterator[None]:
        """Keep a folder to ourselves; PrerequisiteError where another process has it."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise read_problem(path, error) from error
        try:
            if not try_lock(descriptor, path):
                raise PrerequisiteError(
                    f"another gpurig is changing {path} now", hint="wait until it has finished, then run this again"
                )
            yield
        finally:
            os.close(descriptor)

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
