"""Trials: which answers a run is about. A sample is asked of every generator, once in every epoch."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpurig.common.errors import InputError
from gpurig.evaljobs.records import trial_id
from gpurig.evaljobs.suites.selection import EVERYTHING, Selection, fits, tag_names
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


def select_trials(suite: Suite, selection: Selection = EVERYTHING) -> tuple[Trial, ...]:
    """The trials that a selection takes, in the suite's order; there is at least one.

    Raises:
        InputError: an id, tag or generator that the suite does not have; nothing is left.
    """
    for given, known, what in (
        (selection.only, [sample.id for sample in suite.samples], "sample"),
        (tag_names(selection.tags), [tag for sample in suite.samples for tag in sample.tags], "tag"),
        (selection.generators, [name for name in suite.named_generators if name], "generator"),
    ):
        _demand_known(suite, given, known, what)
    samples = [sample for sample in suite.samples if not selection.only or sample.id in selection.only]
    samples = [sample for sample in samples if fits(sample.tags, selection.tags)]
    if not samples:
        raise InputError(
            f'no sample of suite "{suite.name}" fits --only and --tag together', hint="leave one of them out"
        )
    if selection.sample is not None:
        samples = _random(samples, selection.sample, selection.seed)
    samples = samples[: selection.limit]
    if selection.shard is not None:
        if selection.shard.total > len(samples):
            raise InputError(
                f"there are {len(samples)} samples for {selection.shard.total} shards: some would have none",
                hint=f"use at most {len(samples)} (`parallel: {len(samples)}`)",
            )
        # Neighbours are alike in kind and length; dealt out like cards they come to different shards.
        samples = samples[selection.shard.index - 1 :: selection.shard.total]
    return trials_of(suite, samples, selection.generators or None)


def _random(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """The `count` samples whose hashes with the seed are least: it depends on nothing but ids and seed."""
    ranked = sorted(samples, key=lambda sample: hashlib.sha256(f"{seed}:{sample.id}".encode()).digest())
    chosen = {sample.id for sample in ranked[:count]}
    return [sample for sample in samples if sample.id in chosen]


def _demand_known(suite: Suite, given: Iterable[str], known: Sequence[str], what: str) -> None:
    unknown = sorted(set(given) - set(known))
    if not unknown:
        return
    near = difflib.get_close_matches(unknown[0], set(known), n=1)
    names = list(dict.fromkeys(known))
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    raise InputError(
        f'suite "{suite.name}" has no {what} "{unknown[0]}"' + (f'; did you mean "{near[0]}"?' if near else ""),
        hint=f"its {what}s: {', '.join(names[:10])}{more}" if names else f"it has no {what}s with names",
    )


def sampling_of(spec: GeneratorSpec, epoch: int) -> SamplingSpec:
    """How an epoch chooses its tokens: epoch e has the seed `seed + e - 1`."""
    return spec.sampling.model_copy(update={"seed": spec.sampling.seed + epoch - 1})
