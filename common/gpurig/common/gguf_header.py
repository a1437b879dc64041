"""The header of a GGUF file, from the first bytes of it: a pure function with a bound on everything it does.

The limits are far above what any published model has, and low enough that the worst header is refused within a
second: DeepSeek V3 has 1,025 tensors, gemma a vocabulary of 262,144 texts, the largest merges half a million.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from typing import Any

from gpurig.common.gguf_values import ARRAY, SCALARS, SIZES, STRING, Array, decoded

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST_PAIRS = 10_000
_MOST_TENSORS = 60_000
# Texts in arrays, all arrays together: each must be stepped over.
_MOST_TEXTS = 1_500_000
# Bytes of one key or name (the format's own limit for keys), of one text, and of all that is kept in memory.
_LONGEST_KEY = 65_535
_LONGEST_TEXT = 8 * 2**20
_MOST_TEXT = 32 * 2**20
_MOST_ELEMENTS = 2**30


class DamagedError(Exception):
    """The file breaks the format; the text says how."""


class NeedsMore(Exception):  # noqa: N818 - no error: the caller has only the beginning yet
    """The header goes on behind the bytes that are there.

    Attributes:
        size: bytes that are needed at least.
    """

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes are needed")
        self.size = size


@dataclass(frozen=True)
class TensorInfo:
    """What the header says of a tensor: `offset` counts from the end of the header."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class Header:
    """A header as it stands in the file.

    Attributes:
        metadata: values; arrays are `Array`.
        size: bytes of the header, without the padding behind it.
    """

    metadata: dict[str, Any]
    tensors: tuple[TensorInfo, ...]
    size: int


def parse_header(data: bytes | bytearray | mmap.mmap, size: int) -> Header:
    """Read the header.

    Args:
        data: the first bytes of the file, or all.
        size: of the whole file.

    Raises:
        DamagedError, struct.error, UnicodeDecodeError: it is none. NeedsMore: it goes on behind `data`.
    """
    return _Parser(data, size).parse()


class _Parser:
    def __init__(self, data: bytes | bytearray | mmap.mmap, size: int) -> None:
        self._data = data
        self._size = size
        self._at = 4
        self._texts = 0
        self._kept = 0

    def parse(self) -> Header:
        if self._data[:4] != MAGIC:
            raise DamagedError("it does not begin with GGUF")
        version = self._scalar("I")
        if version not in _VERSIONS:
            raise DamagedError(f"GGUF version {version} is not supported (2 and 3, little-endian, are)")
        tensors, pairs = self._scalar("Q"), self._scalar("Q")
        # A pair takes at least 13 bytes and a tensor at least 24.
        if pairs * 13 + tensors * 24 > self._size or pairs > _MOST_PAIRS or tensors > _MOST_TENSORS:
            raise DamagedError(f"its header counts {tensors} tensors and {pairs} values, more than any model has")
        metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key = self._text(_LONGEST_KEY)
            if key in metadata:
                raise DamagedError(f'the value "{key}" is there twice')
            metadata[key] = self._value(self._scalar("I"))
        # The further parts of a split model say nothing but their number (llama.cpp, tools/gguf-split), and an
        # importance matrix is no model.
        lacks = metadata.get("split.no") or metadata.get("general.type") == "imatrix"
        if not isinstance(metadata.get("general.architecture"), str) and not lacks:
            raise DamagedError("it names no architecture")
        return Header(metadata, tuple(self._tensor() for _ in range(tensors)), self._at)

    def _demand(self, count: int, what: str) -> None:
        end = self._at + count
        if end > self._size:
            raise DamagedError(f"{what} of {count} bytes does not fit into the file")
        if end > len(self._data):
            raise NeedsMore(end)

    def _scalar(self, code: str) -> Any:
        self._demand(struct.calcsize(code), "a value")
        (value,) = struct.unpack_from(f"<{code}", self._data, self._at)
        self._at += struct.calcsize(code)
        return value

    def _text(self, longest: int) -> str:
        length = self._scalar("Q")
        self._kept += length
        if length > longest or self._kept > _MOST_TEXT:
            raise DamagedError(f"a text of {length} bytes is longer than any model's")
        self._demand(length, "a text")
        raw = self._data[self._at : self._at + length]
        self._at += length
        return decoded(bytes(raw))

    def _value(self, kind: int) -> Any:
        if kind in SCALARS:
            return self._scalar(SCALARS[kind])
        if kind == STRING:
            return self._text(_LONGEST_TEXT)
        if kind != ARRAY:
            raise DamagedError(f"a value has the unknown type {kind}")
        element, count = self._scalar("I"), self._scalar("Q")
        if count > _MOST_ELEMENTS:
            raise DamagedError(f"an array of {count} values does not fit into the file")
        start = self._at
        if element in SIZES:
            self._demand(count * SIZES[element], "an array")
            self._at += count * SIZES[element]
        elif element == STRING:
            self._step_over(count)
        else:
            # llama.cpp reads no arrays of arrays either (gguf.cpp).
            raise DamagedError(f"an array holds values of the type {element}")
        return Array(element, start, count, self._at - start)

    def _step_over(self, count: int) -> None:
        """Move behind `count` texts without keeping one."""
        self._demand(count * 8, "an array")
        self._texts += count
        if self._texts > _MOST_TEXTS:
            raise DamagedError(f"its arrays hold {self._texts} texts, more than any model has")
        # The hot loop of every header that is read: a vocabulary has a quarter of a million texts.
        at, data, have, unpack = self._at, self._data, len(self._data), struct.Struct("<Q").unpack_from
        needed = at
        for _ in range(count):
            needed = at + 8
            if needed > have:
                break
            needed = at = needed + unpack(data, at)[0]
        if needed > self._size:
            raise DamagedError(f"an array of {count} texts does not fit into the file")
        if needed > have:
            raise NeedsMore(needed)
        self._at = at

    def _tensor(self) -> TensorInfo:
        name = self._text(_LONGEST_KEY)
        dimensions = self._scalar("I")
        if not 1 <= dimensions <= 4:
            raise DamagedError(f'tensor "{name}" has {dimensions} dimensions')
        shape = tuple(self._scalar("Q") for _ in range(dimensions))
        return TensorInfo(name, shape, self._scalar("I"), self._scalar("Q"))
