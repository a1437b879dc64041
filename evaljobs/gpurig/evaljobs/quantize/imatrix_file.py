"""Importance matrices as files, in the formats of llama.cpp's llama-imatrix: read both, write the newer one.

The newer is a GGUF file with, for each weight, the sums of its inputs' squares (`NAME.in_sum2`, one row an expert) and
how many inputs were summed (`NAME.counts`): tools/imatrix/imatrix.cpp and common/imatrix-loader.cpp of the pinned
llama.cpp. The older (`.dat`) has means times the number of chunks.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpurig.common.errors import InputError
from gpurig.common.files import read_bytes, read_problem, write_atomic
from gpurig.common.gguf import Gguf, Tensor, read_gguf

_SUMS, _COUNTS = ".in_sum2", ".counts"
_ORIGIN = "gpurig.imatrix.origin"
_F32 = 0
_ALIGNMENT = 32
_U32, _STRING, _ARRAY = 4, 8, 9


@dataclass(frozen=True)
class Importance:
    """What one weight's inputs came to.

    Attributes:
        sums: (experts, columns), the sum of the squares of the input, float32; one row where there are no experts.
        counts: (experts,), how many inputs were summed.
    """

    sums: NDArray[np.float32]
    counts: NDArray[np.float32]

    def means(self) -> NDArray[np.float32]:
        """(experts * columns,): the mean squares, which llama_model_quantize takes; 1 for an expert without input.

        The same is done by llama-quantize (load_imatrix in tools/quantize/quantize.cpp).
        """
        counts = self.counts[:, None]
        return np.where(counts > 0, self.sums / np.maximum(counts, 1), np.float32(1)).astype(np.float32).ravel()


@dataclass(frozen=True)
class ImportanceMatrix:
    """How much every column of every weight matters.

    Attributes:
        weights: by the weight's name.
        datasets: names of the texts it was computed from.
        chunks: how many pieces of text.
        chunk_size: tokens of a piece; 0 where the file does not say.
        origin: a hash of what it was computed from and how; "" where another program wrote it.
    """

    weights: Mapping[str, Importance]
    datasets: tuple[str, ...]
    chunks: int
    chunk_size: int
    origin: str = ""

    @property
    def unseen_experts(self) -> int:
        """Experts that no token of the text was sent to: they are quantized as without an importance matrix."""
        return sum(int((one.counts == 0).sum()) for one in self.weights.values())


def read_importance(path: Path) -> ImportanceMatrix:
    """Read what `gpurig-job imatrix` or llama-imatrix wrote.

    Raises:
        InputError: missing, damaged, no importance matrix, or with values that are not finite.
        PrerequisiteError: no permission.
    """
    try:
        with path.open("rb") as stream:
            newer = stream.read(4) == b"GGUF"
    except OSError as error:
        raise read_problem(path, error) from error
    matrix = _from_gguf(path) if newer else _from_legacy(path)
    for name, one in matrix.weights.items():
        if not np.isfinite(one.sums).all() or not np.isfinite(one.counts).all():
            raise _damaged(path, f"the values of {name} are not finite")
    if not matrix.weights:
        raise _damaged(path, "it holds nothing")
    return matrix


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path} is no usable importance matrix: {why}", hint="compute it again: gpurig-job imatrix")


def _from_gguf(path: Path) -> ImportanceMatrix:
    gguf = read_gguf(path)
    if gguf.metadata.get("general.type") != "imatrix":
        raise _damaged(path, "it is a model")
    data = np.memmap(path, np.uint8, mode="r")
    tensors = {tensor.name: tensor for tensor in gguf.tensors}
    weights = {}
    for name, tensor in tensors.items():
        if not name.endswith(_SUMS):
            continue
        weight = name.removesuffix(_SUMS)
        counted = tensors.get(weight + _COUNTS)
        if counted is None:
            raise _damaged(path, f"the counts of {weight} are missing")
        counts, sums = _floats(data, counted), _floats(data, tensor)
        if not counts.size or sums.size % counts.size:
            raise _damaged(path, f"{weight} has {sums.size} sums and {counts.size} counts")
        weights[weight] = Importance(sums.reshape(counts.size, -1), counts)
    datasets = gguf.metadata.get("imatrix.datasets", ())
    return ImportanceMatrix(
        weights,
        tuple(str(one) for one in datasets) if isinstance(datasets, Sequence) else (),
        _number(gguf, "imatrix.chunk_count"),
        _number(gguf, "imatrix.chunk_size"),
        origin=str(gguf.metadata.get(_ORIGIN, "")),
    )


def _number(gguf: Gguf, key: str) -> int:
    value = gguf.metadata.get(key, 0)
    return value if isinstance(value, int) else 0


def _floats(data: NDArray[np.uint8], tensor: Tensor) -> NDArray[np.float32]:
    if tensor.kind != _F32 or tensor.size_bytes is None:
        raise InputError(
            f"the importance matrix's {tensor.name} is not F32", hint="compute it again: gpurig-job imatrix"
        )
    return np.frombuffer(data[tensor.offset : tensor.offset + tensor.size_bytes].tobytes(), "<f4")


def _from_legacy(path: Path) -> ImportanceMatrix:
    raw, at = read_bytes(path), 0

    def take(size: int) -> bytes:
        nonlocal at
        if not 0 <= size <= len(raw) - at:
            raise _damaged(path, "it ends too early, or is something else")
        at += size
        return raw[at - size : at]

    def integer() -> int:
        return int(struct.unpack("<i", take(4))[0])

    weights = {}
    for _ in range(max(0, integer())):
        name = take(integer()).decode("utf-8", "replace")
        calls = integer()
        sums = np.frombuffer(take(4 * integer()), "<f4")
        if not sums.size:
            raise _damaged(path, f"{name} has no values")
        # Means times chunks: divided by the chunks they are means again.
        weights[name] = Importance(sums.reshape(1, -1), np.array([max(calls, 1)], np.float32))
    chunks, dataset = (integer(), take(integer()).decode("utf-8", "replace")) if at < len(raw) else (0, "")
    return ImportanceMatrix(weights, (dataset,) if dataset else (), chunks, 0)


def write_importance(path: Path, matrix: ImportanceMatrix) -> None:
    """Write the newer format, atomically; weights in the order of their names, as llama-imatrix does.

    Raises:
        PrerequisiteError: it cannot be written.
    """
    metadata: tuple[tuple[str, Any], ...] = (
        ("general.type", "imatrix"),
        ("imatrix.datasets", matrix.datasets),
        ("imatrix.chunk_count", matrix.chunks),
        ("imatrix.chunk_size", matrix.chunk_size),
        (_ORIGIN, matrix.origin),
    )
    head = struct.pack("<4sIQQ", b"GGUF", 3, 2 * len(matrix.weights), len(metadata))
    head += b"".join(_text(key) + _value(value) for key, value in metadata)
    body = bytearray()
    for name, one in sorted(matrix.weights.items()):
        for suffix, values in ((_SUMS, one.sums), (_COUNTS, one.counts.reshape(-1, 1))):
            rows, columns = values.shape
            head += _text(name + suffix) + struct.pack("<IQQIQ", 2, columns, rows, _F32, len(body))
            body += _padded(values.astype("<f4").tobytes())
    write_atomic(path, _padded(head) + bytes(body))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)


def _text(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def _value(value: str | int | tuple[str, ...]) -> bytes:
    match value:
        case str():
            return struct.pack("<I", _STRING) + _text(value)
        case int():
            return struct.pack("<II", _U32, value)
        case _:
            return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(_text(one) for one in value)
