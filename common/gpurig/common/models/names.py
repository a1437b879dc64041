"""The names of models and of their files."""

from __future__ import annotations

import re
from pathlib import Path

from gpurig.common.errors import InputError

SUFFIX = ".gguf"
# What llama.cpp's gguf-split writes (llama_split_path): "%s-%05d-of-%05d.gguf".
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,150}")
_MOST_PARTS = 999


def check_name(name: str) -> str:
    """`name`, if it can be a model's name: it becomes a file's name.

    Raises:
        InputError: it cannot.
    """
    if not _NAME.fullmatch(name) or name.lower().endswith(SUFFIX):
        raise InputError(
            f'"{name}" is no name for a model',
            hint="letters, digits and . _ + - (150 at most, the first a letter or a digit), without .gguf; "
            "for a pull --as NAME gives one",
        )
    return name


def part_of(file: str) -> tuple[str, int, int] | None:
    """Stem, number (from 1) and count of a part of a split model; None for any other file name."""
    found = _PART.fullmatch(file)
    return (found["stem"], int(found["number"]), int(found["count"])) if found else None


def part_files(file: str) -> tuple[str, ...]:
    """The files of the model that `file` (with its folder, or without) is or is a part of, in order.

    Raises:
        InputError: its numbers are no part's, for example 00004-of-00003.
    """
    part = part_of(file)
    if part is None:
        return (file,)
    stem, number, count = part
    if not 1 <= number <= count or count > _MOST_PARTS:
        raise InputError(f'"{file}" is no part of a split model', hint="give the name of its first part")
    return tuple(f"{stem}-{each:05}-of-{count:05}{SUFFIX}" for each in range(1, count + 1))


def local_files(name: str, count: int) -> tuple[str, ...]:
    """The file names under which a model called `name` is kept, in `count` parts."""
    if count == 1:
        return (f"{name}{SUFFIX}",)
    return part_files(f"{name}-00001-of-{count:05}{SUFFIX}")


def model_name(file: str) -> str:
    """The name of the model that `file` is or begins."""
    name = Path(file).name
    part = part_of(name)
    return part[0] if part else name.removesuffix(SUFFIX)


def find_in(folder: Path, name: str) -> tuple[Path, ...]:
    """The files of the model `name` in `folder`, in order; empty where it is not there, not whole, or not for us."""
    try:
        single = folder / f"{name}{SUFFIX}"
        if single.is_file():
            return (single,)
        for first in sorted(folder.glob(f"{_literal(name)}-00001-of-*{SUFFIX}")):
            files = _all_parts(first)
            if model_name(first.name) == name and files and all(file.is_file() for file in files):
                return files
    except OSError:
        # A folder that this user may not look into has nothing for it.
        return ()
    return ()


def _all_parts(first: Path) -> tuple[Path, ...]:
    try:
        return tuple(first.with_name(file) for file in part_files(first.name))
    except InputError:
        return ()


def _literal(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)
