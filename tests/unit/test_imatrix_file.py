from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from gpurig.common.errors import InputError
from gpurig.common.gguf import read_gguf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standins.tiny_gguf import write_tiny_gguf

np = pytest.importorskip("numpy", reason="the eval extra is not installed")

from gpurig.evaljobs.quantize.imatrix_file import (  # noqa: E402 - needs numpy
    Importance,
    ImportanceMatrix,
    read_importance,
    write_importance,
)


def matrix() -> ImportanceMatrix:
    random = np.random.default_rng(1)
    weights = {
        "blk.0.attn_q.weight": Importance(random.random((1, 32), np.float32), np.array([512], np.float32)),
        "blk.0.ffn_up_exps.weight": Importance(random.random((4, 32), np.float32), np.array([7, 0, 3, 5], np.float32)),
    }
    return ImportanceMatrix(weights, ("a text", "ünïcode"), chunks=2, chunk_size=256, origin="abc")


def legacy(entries: dict[str, tuple[int, list[float]]], chunks: int = 3, dataset: bytes = b"wiki") -> bytes:
    data = struct.pack("<i", len(entries))
    for name, (calls, values) in entries.items():
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, len(values))
        data += struct.pack(f"<{len(values)}f", *values)
    return data + struct.pack("<ii", chunks, len(dataset)) + dataset


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "m.imatrix"
    write_importance(path, matrix())
    found = read_importance(path)
    assert (found.datasets, found.chunks, found.chunk_size, found.origin) == (("a text", "ünïcode"), 2, 256, "abc")
    for name, one in matrix().weights.items():
        np.testing.assert_array_equal(found.weights[name].sums, one.sums)
        np.testing.assert_array_equal(found.weights[name].counts, one.counts)


def test_the_gguf_library_reads_it_too(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "m.imatrix"
    write_importance(path, matrix())
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert tensors["blk.0.ffn_up_exps.weight.in_sum2"].shape.tolist() == [32, 4]
    assert tensors["blk.0.ffn_up_exps.weight.counts"].data.ravel().tolist() == [7, 0, 3, 5]


def test_means_are_per_expert_and_one_where_no_token_came() -> None:
    one = matrix().weights["blk.0.ffn_up_exps.weight"]
    means = one.means().reshape(4, 32)
    np.testing.assert_allclose(means[0], one.sums[0] / 7)
    assert (means[1] == 1).all()
    assert matrix().unseen_experts == 1


def test_the_older_format_gives_means(tmp_path: Path) -> None:
    path = tmp_path / "m.dat"
    path.write_bytes(legacy({"blk.0.attn_q.weight": (4, [8.0, 12.0])}))
    found = read_importance(path)
    assert found.weights["blk.0.attn_q.weight"].means().tolist() == [2.0, 3.0]
    assert (found.chunks, found.datasets) == (3, ("wiki",))


def test_an_importance_matrix_is_no_model_and_a_model_no_importance_matrix(tmp_path: Path) -> None:
    model, path = write_tiny_gguf(tmp_path / "tiny.gguf"), tmp_path / "m.imatrix"
    with pytest.raises(InputError, match="it is a model"):
        read_importance(model)
    write_importance(path, matrix())
    assert read_gguf(path).architecture == ""


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    broken = Importance(np.full((1, 32), value, np.float32), np.array([1], np.float32))
    path = tmp_path / "m.imatrix"
    write_importance(path, ImportanceMatrix({"blk.0.attn_q.weight": broken}, (), 1, 512))
    with pytest.raises(InputError, match="not finite"):
        read_importance(path)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m"
    write_importance(path, matrix())
    whole = path.read_bytes()
    old = legacy({"blk.0.attn_q.weight": (4, [8.0, 12.0]), "b": (1, [1.0])})
    # The older format may end behind its last weight, and behind the newer one's last number is padding.
    last_weight = len(old) - 8 - len(b"wiki")
    last_number = max(tensor.offset + (tensor.size_bytes or 0) for tensor in read_gguf(path).tensors)
    cuts = ((whole, range(0, last_number, 7)), (old, [*range(last_weight), *range(last_weight + 1, len(old))]))
    for data, sizes in cuts:
        for size in sizes:
            path.write_bytes(data[:size])
            with pytest.raises(InputError):
                read_importance(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), newer=st.booleans())
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes, newer: bool) -> None:
    path = tmp_path / "any"
    path.write_bytes((b"GGUF" if newer else b"") + data)
    with contextlib.suppress(InputError):
        read_importance(path)
