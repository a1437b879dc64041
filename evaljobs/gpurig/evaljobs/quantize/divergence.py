"""How far a quantized model's predictions are from the original's: what llama-perplexity --kl-divergence tells.

A text is read in chunks; the second half of every chunk is scored, because a token at a chunk's beginning has too
little context. The reference's predictions go to disk, then the model is freed, and each quantized model is read
against them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpurig.common.errors import InputError
from gpurig.evaljobs.quantize.chunks import ChunkReader, Chunks
from gpurig.evaljobs.quantize.logprobs import LogProbFile, decode, encode

# Rows that one thread works on at a time: a block stays in the processor's cache also for large vocabularies.
_BLOCK = 16


@dataclass(frozen=True)
class Predictions:
    """What a model says of the tokens that came, one entry a scored token.

    Attributes:
        log_probability: of the token that came, in nats.
        best: the token it holds most probable.
    """

    log_probability: NDArray[np.float64]
    best: NDArray[np.int64]


@dataclass(frozen=True)
class Reference:
    """A reference model's predictions, its distributions on disk.

    Attributes:
        predictions: exact ones, of the tokens that came.
        file: the distributions, a block a chunk.
    """

    chunks: Chunks
    vocabulary_size: int
    predictions: Predictions
    file: LogProbFile


@dataclass(frozen=True)
class Comparison:
    """One model against the reference, one entry a scored token.

    Attributes:
        divergence: KLD(reference || model) in nats.
        reference, model: what each says of the tokens that came.
    """

    divergence: NDArray[np.float64]
    reference: Predictions
    model: Predictions


def read_reference(
    reader: ChunkReader, chunks: Chunks, file: LogProbFile, *, threads: int, advance: Callable[[], None]
) -> Reference:
    """Let the reference predict; its distributions go to `file`.

    Raises:
        InputError: it predicts nothing finite. PrerequisiteError: no memory, no space.
    """
    said: list[Predictions] = []
    with ThreadPoolExecutor(threads) as pool:
        for number in range(len(chunks.tokens)):
            logits, following = reader.read(chunks, number), _following(chunks, number)

            def block(
                rows: slice, logits: NDArray[np.float32] = logits, following: NDArray[np.int32] = following
            ) -> tuple[Predictions, tuple[NDArray[np.float32], NDArray[np.uint16]]] | None:
                totals = log_totals(logits[rows])
                if not np.isfinite(totals).all():
                    return None
                return _predictions(logits[rows], totals, following[rows]), encode(logits[rows])

            found = [one for one in pool.map(block, _blocks(len(logits))) if one is not None]
            said += [predictions for predictions, _ in found]
            if sum(len(one.best) for one in said) != (number + 1) * chunks.scored:
                raise InputError(
                    "the reference model predicts nothing: its logits are not finite",
                    hint="it is damaged, or needs a wider type than it is stored in (F32 or BF16 instead of F16)",
                )
            file.append([encoded for _, encoded in found])
            advance()
    return Reference(chunks, reader.vocabulary_size, _joined(said), file)


def compare(
    reader: ChunkReader, reference: Reference, *, threads: int, advance: Callable[[], None]
) -> Comparison | None:
    """Let a model predict the same, and compare.

    Returns:
        None where the model's logits are not finite: the quantization broke it.

    Raises:
        InputError: another vocabulary. PrerequisiteError: llama.cpp failed to compute.
    """
    if reader.vocabulary_size != reference.vocabulary_size:
        raise InputError(
            f"the models have different vocabularies ({reference.vocabulary_size} and {reader.vocabulary_size} tokens)",
            hint="compare a model with the one that it was quantized from",
        )
    chunks = reference.chunks
    reference.file.rewind()
    divergence: list[NDArray[np.float64]] = []
    said: list[Predictions] = []
    with ThreadPoolExecutor(threads) as pool:
        for number in range(len(chunks.tokens)):
            known = reference.file.read(chunks.scored)
            logits, following = reader.read(chunks, number), _following(chunks, number)

            def block(
                rows: slice,
                known: tuple[NDArray[np.float32], NDArray[np.uint16]] = known,
                logits: NDArray[np.float32] = logits,
                following: NDArray[np.int32] = following,
            ) -> tuple[Predictions, NDArray[np.float64]]:
                totals = log_totals(logits[rows])
                predictions = _predictions(logits[rows], totals, following[rows])
                return predictions, divergences(known[0][rows], known[1][rows], logits[rows], totals)

            found = list(pool.map(block, _blocks(len(logits))))
            said += [predictions for predictions, _ in found]
            divergence += [values for _, values in found]
            advance()
    comparison = Comparison(np.concatenate(divergence), reference.predictions, _joined(said))
    finite = np.isfinite(comparison.divergence).all() and np.isfinite(comparison.model.log_probability).all()
    return comparison if finite else None


def divergences(
    step: NDArray[np.float32], codes: NDArray[np.uint16], logits: NDArray[np.float32], totals: NDArray[np.float64]
) -> NDArray[np.float64]:
    """KLD(p || q) by row, in nats: the sum over the vocabulary of p (ln p - ln q).

    Args:
        step: of the codes, (rows,), as logprobs.encode made it.
        codes: of p, (rows, vocabulary).
        logits: of q, (rows, vocabulary).
        totals: their `log_totals`, (rows,).
    """
    log_p, p = decode(step, codes)
    # A broken model's infinities are for the caller to see in the result.
    with np.errstate(invalid="ignore"):
        # In place: log_p becomes ln p - ln q, and then p times that.
        log_p -= logits
        log_p += totals.astype(np.float32)[:, None]
        log_p[p == 0] = 0
        log_p *= p
    return np.asarray(log_p.sum(axis=1, dtype=np.float64))


def log_totals(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """The logarithm of the sum of e^logit by row, (rows,)."""
    top = logits.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        total = np.exp(logits - top).sum(axis=1, dtype=np.float64)
        return np.asarray(top[:, 0] + np.log(total), np.float64)


def _following(chunks: Chunks, number: int) -> NDArray[np.int32]:
    """The tokens that the scored positions should have predicted."""
    return chunks.tokens[number, chunks.first_scored + 1 :]


def _predictions(logits: NDArray[np.float32], totals: NDArray[np.float64], following: NDArray[np.int32]) -> Predictions:
    came = logits[np.arange(len(logits)), following]
    return Predictions(came - totals, logits.argmax(axis=1))


def _blocks(rows: int) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, rows, _BLOCK)]


def _joined(parts: list[Predictions]) -> Predictions:
    return Predictions(
        np.concatenate([one.log_probability for one in parts]), np.concatenate([one.best for one in parts])
    )
