from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

np = pytest.importorskip("numpy", reason="the eval extra is not installed")

from gpurig.evaljobs.quantize.graph_inputs import by_expert, by_matrix, weight_name  # noqa: E402 - needs numpy


@settings(max_examples=50)
@given(data=st.data())
def test_each_experts_inputs_are_summed_as_they_were_sent(data: st.DataObject) -> None:
    experts, used, tokens = (data.draw(st.integers(low, 6)) for low in (1, 1, 1))
    shared = data.draw(st.booleans())
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    chosen = random.integers(0, experts, (tokens, used)).astype(np.int32)
    inputs = random.normal(size=(tokens, 1 if shared else used, 3)).astype(np.float32)
    sums, counts = np.zeros((experts, 3)), np.zeros(experts)
    for token in range(tokens):
        for slot in range(used):
            sums[chosen[token, slot]] += np.square(inputs[token, 0 if shared else slot])
            counts[chosen[token, slot]] += 1
    found, counted = by_expert(inputs, chosen, experts)
    np.testing.assert_allclose(found, sums, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(counted, counts)


def test_rows_are_summed_by_column() -> None:
    inputs = np.arange(12, dtype=np.float32).reshape(1, 1, 4, 3)
    sums, counts = by_matrix(inputs, (1, 1))
    np.testing.assert_allclose(sums, [[0 + 9 + 36 + 81, 1 + 16 + 49 + 100, 4 + 25 + 64 + 121]])
    assert counts.tolist() == [4]


def test_a_weight_of_several_matrices_gets_each_ones_inputs() -> None:
    inputs = np.ones((1, 4, 5, 2), np.float32) * np.arange(1, 5, dtype=np.float32)[None, :, None, None]
    sums, counts = by_matrix(inputs, (1, 2))
    # Matrices 0 and 1 are used again for the third and the fourth.
    np.testing.assert_allclose(sums, [[5 * (1 + 9)] * 2 + [5 * (4 + 16)] * 2])
    assert counts.tolist() == [10]


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"blk.0.attn_q.weight", "blk.0.attn_q.weight"),
        (b"CUDA0#blk.0.attn_q.weight#0", "blk.0.attn_q.weight"),
        (b"CUDA0#blk.0.attn_q.weight", "blk.0.attn_q.weight"),
    ],
)
def test_a_copys_name_is_the_weights(raw: bytes, name: str) -> None:
    assert weight_name(raw) == name
