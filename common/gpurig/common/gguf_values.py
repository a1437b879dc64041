"""Arrays of a GGUF header, which stay in the file until somebody asks for them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, overload

from gpurig.common.errors import InputError

STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
SIZES = {kind: struct.calcsize(code) for kind, code in SCALARS.items()}


class ArrayReader(Protocol):
    """Reads bytes of the file again."""

    def read(self, start: int, count: int) -> bytes:
        """`count` bytes from byte `start` of the file on."""


class _NoReader:
    def read(self, start: int, count: int) -> bytes:
        raise InputError(f"bytes {start} to {start + count} of the header are not at hand", hint="read it again")


@dataclass(frozen=True, eq=False)
class Array(Sequence[Any]):
    """The values of one array, read from the file when somebody looks at them, all at once.

    Attributes:
        kind: the elements' type in GGUF.
        start: of the first element, in bytes from the start of the file.
        length: how many elements.
        size_bytes: of all elements.
    """

    kind: int
    start: int
    length: int
    size_bytes: int
    _reader: ArrayReader = field(default_factory=_NoReader, repr=False)
    # What was read: once, however often it is looked at.
    _read: list[tuple[Any, ...]] = field(default_factory=list, repr=False)

    def readable(self, reader: ArrayReader) -> Array:
        """The same array, with the file to read from."""
        return replace(self, _reader=reader)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values())

    def _values(self) -> tuple[Any, ...]:
        if not self._read:
            data = self._reader.read(self.start, self.size_bytes)
            if len(data) != self.size_bytes:
                raise InputError("the model's file became shorter while it was read", hint="run it again")
            if self.kind == STRING:
                self._read.append(tuple(_strings(data, self.length)))
            else:
                self._read.append(struct.unpack(f"<{self.length}{SCALARS[self.kind]}", data))
        return self._read[0]

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """One element or some."""
        return self._values()[index]


def _strings(data: bytes, count: int) -> Iterator[str]:
    at = 0
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", data, at)
        yield decoded(data[at + 8 : at + 8 + length])
        at += 8 + length


def decoded(raw: bytes) -> str:
    """A text of the file; vocabularies of byte-level models hold pieces of characters."""
    return raw.decode("utf-8", "surrogateescape")
