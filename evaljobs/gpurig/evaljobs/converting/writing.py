"""A draft into a folder of its own."""

from __future__ import annotations

from pathlib import Path

from gpurig.common.errors import InputError
from gpurig.common.files import make_directory, write_atomic
from gpurig.evaljobs.converting.draft import Draft


def write_draft(draft: Draft, folder: Path) -> None:
    """Write the suite and its files; suite.yaml comes last.

    Raises:
        InputError: something is in the folder already.
        PrerequisiteError: it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there and not empty", hint="give a new folder: nothing is overwritten")
    make_directory(folder)
    for name, text in {**draft.files, "suite.yaml": draft.suite_text()}.items():
        make_directory((folder / name).parent)
        write_atomic(folder / name, text)
