"""The tensors of a GGUF file: where each lies, and whether that can be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gpurig.common.ggml_types import GGML_TYPES
from gpurig.common.gguf_header import DamagedError, Header, TensorInfo

_DEFAULT_ALIGNMENT = 32
# ggml counts elements and bytes in int64_t.
_MOST = 2**63 - 1


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

    @property
    def elements(self) -> int:
        """The product of `shape`."""
        product = 1
        for length in self.shape:
            product *= length
        return product


def place_tensors(header: Header, size: int) -> tuple[Tensor, ...]:
    """The tensors with their places in a file of `size` bytes.

    Raises:
        DamagedError: one lies outside of the file or over another, is there twice, or has an impossible shape.
    """
    alignment = header.metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= 2**20 or alignment & (alignment - 1):
        raise DamagedError(f"general.alignment is {alignment!r}, no power of two")
    start = (header.size + alignment - 1) // alignment * alignment
    return tuple(_placed(header.tensors, start, alignment, size))


def _placed(infos: tuple[TensorInfo, ...], start: int, alignment: int, size: int) -> Iterator[Tensor]:
    names: set[str] = set()
    free = 0
    for info in infos:
        if info.name in names:
            raise DamagedError(f'tensor "{info.name}" is there twice')
        names.add(info.name)
        bytes_ = _size(info)
        # llama.cpp wants them one behind the other, in the order of the header (gguf.cpp). Where a type is unknown, so
        # is where the next tensor begins.
        if info.offset % alignment or info.offset < free:
            raise DamagedError(f'tensor "{info.name}" lies at offset {info.offset}, over another one')
        end = start + info.offset + (bytes_ or 1)
        if end > size:
            raise DamagedError(f'truncated: tensor "{info.name}" ends at byte {end}, the file has {size}')
        free = info.offset + ((bytes_ or 1) + alignment - 1) // alignment * alignment
        yield Tensor(info.name, info.shape, info.kind, start + info.offset, bytes_)


def _size(info: TensorInfo) -> int | None:
    elements = 1
    for length in info.shape:
        elements *= length
    if not 0 < elements <= _MOST:
        raise DamagedError(f'tensor "{info.name}" has shape {info.shape}')
    kind = GGML_TYPES.get(info.kind)
    if kind is None:
        return None
    if info.shape[0] % kind.block:
        raise DamagedError(f'tensor "{info.name}" has rows of {info.shape[0]}, no multiple of {kind.block}')
    return kind.row_bytes(elements)
