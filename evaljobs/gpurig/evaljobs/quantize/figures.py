"""The figures of a comparison: divergence, agreement, perplexity, each with how far it can be trusted.

The estimators are llama-perplexity's, so that figures can be laid side by side (tools/perplexity/perplexity.cpp of the
pinned llama.cpp): means over the scored tokens, and the standard error sqrt(s²/n), which takes tokens for independent.
They are not quite, so an interval is rather too narrow than too wide. Shares have Wilson intervals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from gpurig.evaljobs.quantize.divergence import Comparison
from gpurig.evaljobs.statistics.intervals import wilson_interval

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Divergence:
    """KLD(reference || model) over the scored tokens, in nats."""

    mean: Estimate
    median: float
    p90: float
    p95: float
    p99: float
    p999: float
    maximum: float


@dataclass(frozen=True)
class Figures:
    """One model against its reference.

    Attributes:
        tokens: how many were scored.
        divergence: of the whole distributions.
        same_top: how often both hold the same token most probable, 0 to 1.
        delta_p_mean, delta_p_rms: of the probability that the model gives the token that came, minus the reference's.
        perplexity, reference_perplexity: e to the mean negative log-probability of the tokens that came.
        perplexity_ratio: model by reference; its interval is of the paired differences, so it is narrower than the two
            perplexities' make it look.
    """

    tokens: int
    divergence: Divergence
    same_top: Estimate
    delta_p_mean: float
    delta_p_rms: float
    perplexity: Estimate
    reference_perplexity: Estimate
    perplexity_ratio: Estimate


def figures(comparison: Comparison) -> Figures:
    """The figures of a comparison of at least one token."""
    model, reference = comparison.model, comparison.reference
    values = comparison.divergence
    same = int((model.best == reference.best).sum())
    delta = np.exp(model.log_probability) - np.exp(reference.log_probability)
    median, p90, p95, p99, p999 = (float(one) for one in np.quantile(values, (0.5, 0.9, 0.95, 0.99, 0.999)))
    return Figures(
        tokens=len(values),
        divergence=Divergence(_mean(values), median, p90, p95, p99, p999, float(values.max())),
        same_top=Estimate(same / len(values), *wilson_interval(same, len(values))),
        delta_p_mean=float(delta.mean()),
        delta_p_rms=float(np.sqrt(np.square(delta).mean())),
        perplexity=_exponential(-model.log_probability),
        reference_perplexity=_exponential(-reference.log_probability),
        perplexity_ratio=_exponential(reference.log_probability - model.log_probability),
    )


def _mean(values: NDArray[np.float64]) -> Estimate:
    middle = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Estimate(middle, middle - _Z * error, middle + _Z * error)


def _exponential(values: NDArray[np.float64]) -> Estimate:
    mean = _mean(values)
    return Estimate(*(_exp(one) for one in (mean.value, mean.low, mean.high)))


def _exp(value: float) -> float:
    # A broken model's perplexity is past what a double holds.
    return math.exp(value) if value < 709 else math.inf
