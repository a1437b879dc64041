"""Headers that want to do harm: refused within a second and without memory, or read."""

from __future__ import annotations

import resource
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from gpurig.common.errors import InputError
from gpurig.common.ggml_types import GGML_TYPES
from gpurig.common.gguf import Gguf, read_gguf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standins.model_shapes import published_shapes, write_shape
from standins.tiny_gguf import write_tiny_gguf

MOST_SECONDS = 1.0
MOST_BYTES = 64 * 2**20


def text(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


ARCHITECTURE = pair("general.architecture", 8, text("llama"))


def file_of(
    *pairs: bytes, tensors: tuple[bytes, ...] = (), counts: tuple[int, int] | None = None, size: int = 0
) -> bytes:
    many = counts or (len(tensors), 1 + len(pairs))
    header = struct.pack("<4sIQQ", b"GGUF", 3, *many) + ARCHITECTURE + b"".join(pairs) + b"".join(tensors)
    return header + b"\0" * (-len(header) % 32) + b"\0" * size


def read_within_bounds(path: Path) -> Gguf | None:
    """Read; None where it is refused; more time or memory than a header may take is a failure."""
    tracemalloc.start()
    started = time.process_time()
    found, refused = None, None
    try:
        found = read_gguf(path)
    except InputError as error:
        refused = error
    finally:
        seconds = time.process_time() - started
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # Counting allocations makes Python some times slower.
    assert seconds < 4 * MOST_SECONDS
    assert peak < MOST_BYTES
    assert refused is None or (path.name in refused.message and refused.hint)
    return found


HOSTILE: dict[str, Callable[[], bytes]] = {
    "2^60 tensors": lambda: file_of(counts=(2**60, 1)),
    "2^64-1 values": lambda: file_of(counts=(0, 2**64 - 1)),
    "counts whose product overflows": lambda: file_of(counts=(2**61, 2**61)),
    "more tensors than any model": lambda: file_of(counts=(70_000, 1), size=70_000 * 24),
    "many tiny keys": lambda: file_of(*(pair(f"{n:x}", 0, b"\0") for n in range(20_000))),
    "a text of 2^63 bytes": lambda: file_of(pair("general.name", 8, struct.pack("<Q", 2**63))),
    "a text of the whole file": lambda: file_of(pair("general.name", 8, text(b"x" * (9 * 2**20)))),
    "a key of a megabyte": lambda: file_of(pair("k" * 2**20, 0, b"\0")),
    "an array of 2^62 numbers": lambda: file_of(pair("a", 9, struct.pack("<IQ", 4, 2**62))),
    "an array of 2^62 texts": lambda: file_of(pair("a", 9, struct.pack("<IQ", 8, 2**62))),
    "an array of texts whose lengths overflow": lambda: file_of(
        pair("a", 9, struct.pack("<IQ", 8, 3) + struct.pack("<QQQ", 2**63, 2**63, 2**63))
    ),
    "two million empty texts": lambda: file_of(pair("a", 9, struct.pack("<IQ", 8, 2_000_000) + b"\0" * 16_000_000)),
    "arrays in arrays": lambda: file_of(pair("a", 9, struct.pack("<IQ", 9, 1) * 1000)),
    "the same key twice": lambda: file_of(pair("a", 0, b"\0"), pair("a", 0, b"\0")),
    "the same tensor twice": lambda: file_of(tensors=(tensor("t", (8,)), tensor("t", (8,), offset=32)), size=64),
    "a tensor over another": lambda: file_of(tensors=(tensor("t", (16,)), tensor("u", (16,), offset=32)), size=128),
    "a tensor without elements": lambda: file_of(tensors=(tensor("t", (0, 8)),), size=64),
    "a shape of 2^128 elements": lambda: file_of(tensors=(tensor("t", (2**32, 2**32, 2**32, 2**32)),), size=64),
    "a shape of 2^63 elements": lambda: file_of(tensors=(tensor("t", (2**32, 2**31)),), size=64),
    "a tensor of nine dimensions": lambda: file_of(tensors=(tensor("t", (1,) * 9),), size=64),
    "rows that are no whole blocks": lambda: file_of(tensors=(tensor("t", (100,), 12),), size=640),
    "a tensor behind the end": lambda: file_of(tensors=(tensor("t", (8,), offset=2**40),), size=64),
    "an offset that overflows": lambda: file_of(tensors=(tensor("t", (8,), offset=2**64 - 32),), size=64),
    "an alignment of 2^31": lambda: file_of(
        pair("general.alignment", 4, struct.pack("<I", 2**31)), tensors=(tensor("t", (8,)),), size=64
    ),
    "an alignment of nothing": lambda: file_of(
        pair("general.alignment", 4, struct.pack("<I", 0)), tensors=(tensor("t", (8,)),), size=64
    ),
    "an alignment that is a text": lambda: file_of(
        pair("general.alignment", 8, text("32")), tensors=(tensor("t", (8,)),), size=64
    ),
    "an unknown type of value": lambda: file_of(pair("a", 13, b"\0" * 8)),
    "no architecture": lambda: struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + pair("general.name", 8, text("x")),
    "an architecture that is a number": lambda: (
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + pair("general.architecture", 4, b"\0" * 4)
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_header_is_refused_in_time_and_without_memory(what: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(HOSTILE[what]())
    assert read_within_bounds(path) is None


def test_a_vocabulary_of_a_gigabyte_takes_no_memory_until_somebody_looks(tmp_path: Path) -> None:
    count = 2**28
    header = struct.pack("<4sIQQ", b"GGUF", 3, 0, 2) + ARCHITECTURE
    header += pair("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, count))
    path = tmp_path / "large.gguf"
    with path.open("wb") as stream:
        stream.write(header)
        stream.truncate(len(header) + 4 * count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = read_within_bounds(path)
    assert found is not None
    assert len(found.metadata["tokenizer.ggml.scores"]) == count
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_the_largest_real_vocabularies_are_read_in_time(tmp_path: Path) -> None:
    tokens = b"".join(text(f"token{number}") for number in range(262_144))
    merges = b"".join(text(f"a{number} b") for number in range(514_906))
    path = tmp_path / "vocabulary.gguf"
    path.write_bytes(
        file_of(
            pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 262_144) + tokens),
            pair("tokenizer.ggml.merges", 9, struct.pack("<IQ", 8, 514_906) + merges),
        )
    )
    started = time.process_time()
    found = read_gguf(path)
    assert time.process_time() - started < MOST_SECONDS
    assert found.metadata["tokenizer.ggml.tokens"][262_143] == "token262143"
    assert found.metadata["tokenizer.ggml.merges"][:2] == ("a0 b", "a1 b")


def test_the_types_are_those_of_the_llama_cpp_that_is_installed() -> None:
    import ctypes

    from llama_cpp._ggml import libggml

    libggml.ggml_type_name.restype = ctypes.c_char_p
    libggml.ggml_type_size.restype = ctypes.c_size_t
    libggml.ggml_blck_size.restype = ctypes.c_int64
    known = {}
    for number in range(64):
        # Behind the last type the library reads something else; a removed one has blocks of nothing.
        if number > max(GGML_TYPES):
            break
        if libggml.ggml_blck_size(number):
            sizes = libggml.ggml_blck_size(number), libggml.ggml_type_size(number)
            known[number] = (libggml.ggml_type_name(number).decode(), *sizes)
    assert {n: (kind.name, kind.block, kind.block_bytes) for n, kind in GGML_TYPES.items()} == known


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Headers of real models: a tiny one with a vocabulary, and some of real sizes (their weights are holes)."""
    folder = tmp_path_factory.mktemp("seeds")
    found = [write_tiny_gguf(folder / "tiny.gguf", chat_template="{{ messages }}").read_bytes()]
    for name in ("llama-3.2-1b", "granite-4.0-h-micro", "gpt-oss-20b"):
        path = write_shape(folder / f"{name}.gguf", published_shapes()[name])
        with path.open("rb") as stream:
            found.append(stream.read(40_000))
    return found


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_bytes_change_the_file_is_refused_or_read_in_time_and_without_memory(
    data: st.DataObject, seeds: list[bytes], tmp_path: Path
) -> None:
    seed = bytearray(data.draw(st.sampled_from(seeds)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(seed), 30_000) - 1))
        how = data.draw(st.sampled_from(["byte", "number", "cut", "repeat"]))
        if how == "byte":
            seed[at] = data.draw(st.integers(0, 255))
        elif how == "number":
            number = data.draw(st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**60, 2**63, 2**64 - 1]))
            seed[at : at + 8] = struct.pack("<Q", number)
        elif how == "cut":
            del seed[at : at + data.draw(st.integers(1, 64))]
        else:
            seed[at:at] = seed[at : at + data.draw(st.integers(1, 64))]
    path = tmp_path / "changed.gguf"
    path.write_bytes(bytes(seed))
    read_within_bounds(path)
