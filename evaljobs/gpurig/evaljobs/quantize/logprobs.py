"""Log-probabilities of a reference model on disk, so that two models need never be in memory at once.

Two bytes a token of the vocabulary. A row's highest logit is code 65535, and a code less is `step` nats less: step =
range / 65534, where the range is the row's, at most 32 nats. Code 0 is what lies below (together at most vocabulary *
e^-32 of the probability, 2e-9 for 128,000 tokens) and counts as impossible. What is read back is normalised again, so
it is a probability distribution p' with |ln p'/p| <= step <= 4.9e-4, and a divergence computed from it is one of
distributions (negative by rounding only). Its error is |KLD(p'||q) - KLD(p||q)| <= KLD(p'||p) + (e^step - 1) *
E_p|ln p/q|, where the first term is below step²/2 = 1.2e-7. Rounding goes either way, so over thousands of tokens the
second term all but vanishes: docs/models.md has what was measured. llama-perplexity's own file has two bytes over 16
nats and is not normalised again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

from gpurig.common.errors import PrerequisiteError
from gpurig.common.files import write_problem

_RANGE = np.float32(32.0)
_TOP = 65535


def encode(logits: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Compact rows of logits.

    Args:
        logits: (rows, vocabulary), finite or -inf, and not all -inf in a row.

    Returns:
        The step of each row in nats, (rows,), and the codes, (rows, vocabulary).
    """
    below = logits.max(axis=1, keepdims=True) - logits
    reach = below.max(axis=1, keepdims=True)
    if not np.isfinite(reach).all():
        reach = np.where(np.isfinite(below), below, np.float32(0)).max(axis=1, keepdims=True)
    step = np.minimum(reach, _RANGE) / np.float32(_TOP - 1)
    # A row whose logits are all the same has nothing to spread.
    step = np.where(step > 0, step, np.float32(1))
    # In place: these are the largest arrays of the whole comparison.
    below /= step
    np.minimum(below, np.float32(_TOP), out=below)
    np.rint(below, out=below)
    np.subtract(np.float32(_TOP), below, out=below)
    return step[:, 0], below.astype(np.uint16)


def decode(step: NDArray[np.float32], codes: NDArray[np.uint16]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What `encode` made, as a distribution.

    Returns:
        Log-probabilities and probabilities, each (rows, vocabulary) and normalised; where a code is 0 the probability
        is 0, and the log-probability has no meaning.
    """
    log = (codes.astype(np.float32) - np.float32(_TOP)) * step[:, None]
    probability = np.exp(log)
    probability[codes == 0] = 0
    total = probability.sum(axis=1, keepdims=True, dtype=np.float64)
    log -= np.log(total).astype(np.float32)
    probability /= total.astype(np.float32)
    return log, probability


def file_bytes(rows: int, vocabulary: int) -> int:
    """What a file of so many rows takes on disk."""
    return rows * (4 + 2 * vocabulary)


class LogProbFile:
    """Rows on disk, written in order and read in order; the file has no name, so nothing remains of it."""

    def __init__(self, folder: Path, vocabulary: int) -> None:
        """Make it in `folder`.

        Raises:
            PrerequisiteError: it cannot be made there.
        """
        self._folder, self._vocabulary = folder, vocabulary
        try:
            self._stream: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        except OSError as error:
            raise write_problem(folder, error) from error

    def append(self, blocks: Sequence[tuple[NDArray[np.float32], NDArray[np.uint16]]]) -> None:
        """Write what `encode` made of rows that follow one another.

        Raises:
            PrerequisiteError: the disk is full.
        """
        try:
            for step, _ in blocks:
                self._stream.write(step.astype("<f4").tobytes())
            for _, codes in blocks:
                self._stream.write(codes.astype("<u2", copy=False).tobytes())
        except OSError as error:
            raise write_problem(self._folder, error) from error

    def rewind(self) -> None:
        """Read from the beginning.

        Raises:
            PrerequisiteError: the disk is full.
        """
        try:
            self._stream.seek(0)
        except OSError as error:
            raise write_problem(self._folder, error) from error

    def read(self, rows: int) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
        """The next block, of as many rows as were appended at once.

        Raises:
            PrerequisiteError: the file is shorter than what was written to it.
        """
        step = self._stream.read(4 * rows)
        codes = self._stream.read(2 * rows * self._vocabulary)
        if len(codes) < 2 * rows * self._vocabulary:
            raise PrerequisiteError(f"the temporary file in {self._folder} lost its end", hint="check the disk")
        return np.frombuffer(step, "<f4"), np.frombuffer(codes, "<u2").reshape(rows, self._vocabulary)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
