from __future__ import annotations

from pathlib import Path

import pytest
from gpurig.common.errors import PrerequisiteError
from hypothesis import given, settings
from hypothesis import strategies as st

np = pytest.importorskip("numpy", reason="the eval extra is not installed")

from gpurig.evaljobs.quantize.divergence import divergences, log_totals  # noqa: E402 - needs numpy
from gpurig.evaljobs.quantize.logprobs import LogProbFile, decode, encode, file_bytes  # noqa: E402

# A step of the codes: 32 nats in 65534.
STEP = 32 / 65534


def exact(logits):
    wide = logits.astype(np.float64)
    log = wide - wide.max(axis=1, keepdims=True)
    return log - np.log(np.exp(log).sum(axis=1, keepdims=True))


def rows(seed: int, scale: float, size: int = 300):
    return (np.random.default_rng(seed).normal(0, scale, (5, size))).astype(np.float32)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 30))
def test_every_probability_that_matters_comes_back_within_a_step(seed: int, scale: float) -> None:
    logits = rows(seed, scale)
    log, probability = decode(*encode(logits))
    true = exact(logits)
    near = true > true.max(axis=1, keepdims=True) - 31.9
    assert np.abs(log - true)[near].max() < STEP + 1e-5
    np.testing.assert_allclose(probability.sum(axis=1, dtype=np.float64), 1, atol=1e-6)
    # What is left out is less than anybody can measure.
    assert np.exp(true)[probability == 0].sum() < 300 * np.exp(-31.9)


def test_the_best_token_stays_the_best() -> None:
    logits = rows(3, 8)
    _, probability = decode(*encode(logits))
    assert (probability.argmax(axis=1) == logits.argmax(axis=1)).all()


def test_tokens_that_are_impossible_stay_so() -> None:
    logits = rows(4, 3)
    logits[:, 10:20] = -np.inf
    _, probability = decode(*encode(logits))
    assert (probability[:, 10:20] == 0).all()
    assert np.isfinite(divergences(*encode(logits), logits, log_totals(logits))).all()


def test_a_row_without_differences_is_uniform() -> None:
    _, probability = decode(*encode(np.full((2, 8), 3.5, np.float32)))
    np.testing.assert_allclose(probability, 1 / 8, rtol=1e-6)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 10), noise=st.floats(0.001, 2))
def test_a_divergence_is_that_of_the_exact_distributions(seed: int, scale: float, noise: float) -> None:
    p = rows(seed, scale)
    q = p + rows(seed + 1, noise)
    log_p, log_q = exact(p), exact(q)
    true = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    spread = (np.exp(log_p) * np.abs(log_p - log_q)).sum(axis=1)
    # The bound that logprobs.py gives, and rounding of single precision.
    assert (np.abs(divergences(*encode(p), q, log_totals(q)) - true) <= 1.2e-7 + STEP * 1.001 * spread + 4e-6).all()


def test_a_distribution_diverges_from_itself_by_nothing() -> None:
    logits = np.concatenate([rows(seed, 4, 5000) for seed in range(20)])
    found = divergences(*encode(logits), logits, log_totals(logits))
    assert abs(found.mean()) < 1e-6
    assert np.abs(found).max() < 1e-5


def test_totals_do_not_overflow() -> None:
    np.testing.assert_allclose(log_totals(np.array([[1000.0, 1000.0]], np.float32)), 1000 + np.log(2))


def test_blocks_are_read_as_they_were_written_and_nothing_remains(tmp_path: Path) -> None:
    first, second = rows(1, 2), rows(2, 2)
    with LogProbFile(tmp_path, 300) as file:
        file.append([encode(first[:2]), encode(first[2:])])
        file.append([encode(second)])
        assert list(tmp_path.iterdir()) == []
        for _ in range(2):
            file.rewind()
            for block in (first, second):
                for got, written in zip(file.read(5), encode(block), strict=True):
                    np.testing.assert_array_equal(got, written)
        with pytest.raises(PrerequisiteError, match="lost its end"):
            file.read(5)
    assert file_bytes(10, 300) == 10 * (4 + 600)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="cannot write"):
        LogProbFile(tmp_path / "none", 8)
