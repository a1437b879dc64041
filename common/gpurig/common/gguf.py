"""GGUF files: metadata and tensors, read and held against the file's size.

llama.cpp maps the file and trusts what its header says in places; a truncated download would then end the process
by a signal. So everything that can be checked without loading is checked here first. A header is hostile until it is
read: every count in it is held against a limit before anything is done that often, and what may be large (the
vocabulary) stays in the file until somebody asks for it.
The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpurig.common.errors import InputError
from gpurig.common.files import read_problem
from gpurig.common.gguf_header import MAGIC, DamagedError, Header, parse_header
from gpurig.common.gguf_tensors import Tensor, place_tensors
from gpurig.common.gguf_values import Array, ArrayReader

__all__ = ["Array", "Gguf", "Tensor", "from_header", "parse_checked", "read_gguf"]


@dataclass(frozen=True)
class Gguf:
    """What a GGUF file says about itself.

    Attributes:
        source: where it is: a path, or the address of a remote file.
        metadata: its key-value pairs; an array is an `Array`, which reads from the file what is asked of it.
        size_bytes: of the whole file.
    """

    source: str
    size_bytes: int
    metadata: Mapping[str, Any] = field(repr=False)
    tensors: tuple[Tensor, ...] = field(repr=False)

    @property
    def path(self) -> Path:
        """`source` as a path."""
        return Path(self.source)

    @property
    def architecture(self) -> str:
        """For example "llama"; "" for what names none: a further part of a split model, an importance matrix."""
        return str(self.metadata.get("general.architecture", ""))

    def of_architecture(self, key: str) -> Any:
        """The metadata value `<architecture>.<key>`, or None."""
        return self.metadata.get(f"{self.architecture}.{key}")


def read_gguf(path: Path) -> Gguf:
    """Read a GGUF file's header and check that every tensor lies inside the file.

    Raises:
        InputError: missing, no GGUF, damaged, truncated, or of a version or byte order that is not supported.
        PrerequisiteError: no permission.
    """
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            if size < 24 or stream.read(4) != MAGIC:
                raise InputError(f"{path} is no GGUF file", hint="give the path of a model in GGUF format")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return from_header(str(path), parse_checked(str(path), data, size), size, _FileReader(path))
    except OSError as error:
        raise read_problem(path, error) from error


def parse_checked(source: str, data: bytes | mmap.mmap, size: int) -> Header:
    """The header at the beginning of `data`, the first bytes of a file of `size` bytes.

    Raises:
        InputError: it is damaged, or no header of a version that is known. NeedsMore: it goes on behind `data`.
    """
    try:
        return parse_header(data, size)
    except DamagedError as error:
        raise damaged(source, str(error)) from error
    except (struct.error, UnicodeDecodeError) as error:
        raise damaged(source, "its header ends too early or holds garbage") from error


def from_header(source: str, header: Header, size: int, reader: ArrayReader) -> Gguf:
    """What a header says, its tensors held against the file's size.

    Args:
        source: for messages.
        header: what `parse_checked` read.
        size: of the whole file.
        reader: gives the header's bytes again when somebody looks into an array.

    Raises:
        InputError: a tensor lies outside of the file, or over another one, or its shape is impossible.
    """
    try:
        tensors = place_tensors(header, size)
    except DamagedError as error:
        raise damaged(source, str(error)) from error
    metadata = {
        key: value.readable(reader) if isinstance(value, Array) else value for key, value in header.metadata.items()
    }
    return Gguf(source, size, metadata, tensors)


def damaged(source: str, reason: str) -> InputError:
    """The user's error for a file that breaks the format."""
    return InputError(f"{source} is damaged: {reason}", hint="copy or download the model again and compare its sha256")


@dataclass(frozen=True)
class _FileReader:
    path: Path

    def read(self, start: int, count: int) -> bytes:
        try:
            with self.path.open("rb") as stream:
                stream.seek(start)
                return stream.read(count)
        except OSError as error:
            raise read_problem(self.path, error) from error
