"""GGUF files: metadata and tensors, read and held against the file's size.

llama.cpp maps the file and trusts what its header says in places; a truncated download would then end the process
by a signal. So everything that can be checked without loading is checked here first.
The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gpurig.common.errors import InputError
from gpurig.common.files import read_problem

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# Elements and bytes of one block, by ggml_type (ggml.h; sizes from ggml-common.h). A type that is not here is newer
# than this table: its size is not checked.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """One tensor's place in the file.

    Attributes:
        shape: elements by dimension, the fastest one first, as ggml counts.
        kind: ggml_type.
        offset: bytes from the start of the file.
        size_bytes: None where `kind` is newer than this reader.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    size_bytes: int | None


@dataclass(frozen=True)
class Gguf:
    """What a GGUF file says about itself.

    Attributes:
        metadata: its key-value pairs; arrays are tuples.
        size_bytes: of the whole file.
    """

    path: Path
    size_bytes: int
    metadata: Mapping[str, Any]
    tensors: tuple[Tensor, ...]

    @property
    def architecture(self) -> str:
        """For example "llama"."""
        return str(self.metadata["general.architecture"])

    def of_architecture(self, key: str) -> Any:
        """The metadata value `<architecture>.<key>`, or None."""
        return self.metadata.get(f"{self.architecture}.{key}")


class _DamagedError(Exception):
    """The file breaks the format; the text says how."""


def read_gguf(path: Path) -> Gguf:
    """Read a GGUF file's header and check that every tensor lies inside the file.

    Raises:
        InputError: missing, no GGUF, damaged, truncated, or of a version or byte order that is not supported.
        PrerequisiteError: no permission.
    """
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            if size < 24 or stream.read(4) != _MAGIC:
                raise InputError(f"{path} is no GGUF file", hint="give the path of a model in GGUF format")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path, data).read()
    except OSError as error:
        raise read_problem(path, error) from error
    except (_DamagedError, struct.error, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, _DamagedError) else "its header ends too early or holds garbage"
        raise InputError(
            f"{path} is damaged: {reason}", hint="copy or download the model again and compare its sha256"
        ) from error


class _Reader:
    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._at = 4

    def read(self) -> Gguf:
        version = self._scalar("I")
        if version not in _VERSIONS:
            raise _DamagedError(f"GGUF version {version} is not supported (2 and 3, little-endian, are)")
        tensor_count, pair_count = self._scalar("Q"), self._scalar("Q")
        # A pair takes at least 13 bytes and a tensor at least 24: a count beyond that is garbage, and would loop long.
        if pair_count * 13 + tensor_count * 24 > len(self._data):
            raise _DamagedError(f"its header counts {tensor_count} tensors and {pair_count} values, more than fit")
        metadata: dict[str, Any] = {}
        for _ in range(pair_count):
            key = self._string()
            metadata[key] = self._value(self._scalar("I"))
        if not isinstance(metadata.get("general.architecture"), str):
            raise _DamagedError("it names no architecture")
        infos = [self._tensor_info() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise _DamagedError(f"general.alignment is {alignment!r}, no power of two")
        start = (self._at + alignment - 1) // alignment * alignment
        tensors = tuple(self._placed(*info, start=start, alignment=alignment) for info in infos)
        return Gguf(self._path, len(self._data), MappingProxyType(metadata), tensors)

    def _scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self._data, self._at)
        self._at += struct.calcsize(f"<{code}")
        return value

    def _string(self) -> str:
        length = self._scalar("Q")
        if length > len(self._data) - self._at:
            raise _DamagedError(f"a text of {length} bytes does not fit into the file")
        raw = self._data[self._at : self._at + length]
        self._at += length
        # Vocabularies of byte-level models hold pieces of characters.
        return raw.decode("utf-8", "surrogateescape")

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY or depth > 4:
            raise _DamagedError(f"a value has the unknown type {kind}")
        of, count = self._scalar("I"), self._scalar("Q")
        if count > len(self._data) - self._at:
            raise _DamagedError(f"an array of {count} values does not fit into the file")
        if of in _SCALARS:
            values = struct.unpack_from(f"<{count}{_SCALARS[of]}", self._data, self._at)
            self._at += struct.calcsize(f"<{count}{_SCALARS[of]}")
            return values
        return tuple(self._value(of, depth + 1) for _ in range(count))

    def _tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        dimensions = self._scalar("I")
        if not 1 <= dimensions <= 4:
            raise _DamagedError(f'tensor "{name}" has {dimensions} dimensions')
        shape = tuple(self._scalar("Q") for _ in range(dimensions))
        return name, shape, self._scalar("I"), self._scalar("Q")

    def _placed(
        self, name: str, shape: tuple[int, ...], kind: int, offset: int, *, start: int, alignment: int
    ) -> Tensor:
        elements = 1
        for length in shape:
            elements *= length
        if not elements or offset % alignment:
            raise _DamagedError(f'tensor "{name}" has shape {shape} at offset {offset}')
        size = None
        if kind in _BLOCKS:
            per_block, block_bytes = _BLOCKS[kind]
            if shape[0] % per_block:
                raise _DamagedError(f'tensor "{name}" has rows of {shape[0]}, no multiple of {per_block}')
            size = elements // per_block * block_bytes
        end = start + offset + (size or 1)
        if end > len(self._data):
            raise _DamagedError(f'truncated: tensor "{name}" ends at byte {end}, the file has {len(self._data)}')
        return Tensor(name, shape, kind, start + offset, size)
