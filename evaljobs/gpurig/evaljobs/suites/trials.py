"""Trials: which answers a run is about. A sample is asked of every generator, once in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpurig.common.errors import InputError
from gpurig.evaljobs.records import trial_id
from gpurig.evaljobs.suites.suite import GeneratorSpec, Sample, SamplingSpec, Suite


@dataclass(frozen=True)
class Trial:
    """One answer that is wanted.

    Attributes:
        generator: the generator's name; "" where the suite has one without a name.
        epoch: from 1.
    """

    sample: Sample
    generator: str = ""
    epoch: int = 1

    @property
    def id(self) -> str:
        """What names it in records and results; the sample's id where there is nothing to tell apart."""
        return trial_id(self.sample.id, self.generator, self.epoch)


def trials_of(
    suite: Suite, samples: Sequence[Sample] | None = None, generators: Sequence[str] | None = None
) -> tuple[Trial, ...]:
    """The trials of some samples (all where None) with some generators: by sample, then generator, then epoch."""
    names = tuple(suite.named_generators) if generators is None else generators
    return tuple(
        Trial(sample, name, epoch)
        for sample in (suite.samples if samples is None else samples)
        for name in names
        for epoch in range(1, suite.epochs.n + 1)
    )


def select_trials(suite: Suite, *, only: tuple[str, ...] = (), limit: int | None = None) -> tuple[Trial, ...]:
    """The trials of the samples with the ids `only` (all where it is empty), at most the first `limit` of them.

    Raises:
        InputError: an id that the suite does not have.
    """
    unknown = set(only) - {sample.id for sample in suite.samples}
    if unknown:
        raise InputError(
            f'suite "{suite.name}" has no sample "{min(unknown)}"', hint=f"{suite.path} lists the samples' ids"
        )
    chosen = tuple(sample for sample in suite.samples if not only or sample.id in only)
    return trials_of(suite, chosen if limit is None else chosen[:limit])


def sampling_of(spec: GeneratorSpec, epoch: int) -> SamplingSpec:
    """How an epoch chooses its tokens: epoch e has the seed `seed + e - 1`."""
    return spec.sampling.model_copy(update={"seed": spec.sampling.seed + epoch - 1})
