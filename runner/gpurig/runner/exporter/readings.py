"""What the samplers know, put together to one moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from gpurig.runner.exporter.devices.driver import DriverFacts
from gpurig.runner.exporter.devices.figures import Figures
from gpurig.runner.exporter.devices.inventory import Known, KnownGpu
from gpurig.runner.exporter.devices.xid import XidSeen
from gpurig.runner.exporter.exposition.view import CollectorView, GpuView, View
from gpurig.runner.exporter.jobs.model import Accounts, BoxFacts
from gpurig.runner.exporter.sampler import Sample, Sampler

# Readings older than this are not the present: the series end instead of repeating the last value.
STALE_AFTER_S = 30.0


class Background(Protocol):
    """What runs in threads of its own."""

    def start(self) -> None:
        """Begin; what can be known at once is known when it returns."""

    def stop(self) -> None:
        """End."""


@dataclass(frozen=True)
class Readings:
    """Where the metrics come from.

    Attributes:
        inventory: the GPUs; None for a box that is served without any.
        figures: their readings, by source.
        box: jobs' containers, runner entries, disks.
        jobs: brings job accounting up to date; None where there is none.
        accounts: jobs, projects and energy.
        xids: errors that drivers reported, by UUID and number.
        drivers: what sources know of their drivers, which is more than detection tells.
        background: what follows the box in threads of its own.
        close: keeps what must outlive the exporter; called last.
        monotonic: the clock of the samplers.
        hostname: what the machine is called.
    """

    inventory: Sampler[Known] | None
    figures: Sequence[Sampler[Mapping[str, Figures]]]
    box: Sampler[BoxFacts | None]
    jobs: Sampler[None] | None = None
    accounts: Callable[[], Accounts] = Accounts
    xids: Callable[[], Mapping[str, Mapping[int, XidSeen]]] = dict
    drivers: Callable[[], Sequence[DriverFacts]] = tuple
    background: Sequence[Background] = ()
    close: Callable[[], None] = lambda: None
    monotonic: Callable[[], float] = time.monotonic
    hostname: str = ""

    @property
    def samplers(self) -> tuple[Sampler[Any], ...]:
        """All of them, in the order in which the first reading goes."""
        first = [self.inventory] if self.inventory else []
        return (*first, self.box, *self.figures, *([self.jobs] if self.jobs else []))

    def view(self) -> View:
        """This moment; a source that fails lacks its own and leaves the rest."""
        now = self.monotonic()
        known = self.inventory.value if self.inventory else None
        accounts = self.accounts()
        box = _present(self.box, now)
        return View(
            gpus=_gpus(known, self.present_figures(), accounts, self.xids()) if known else (),
            facts=known.facts if known else None,
            drivers=_drivers(known, self.drivers()) if known else (),
            accounts=accounts,
            box=box,
            hostname=self.hostname,
            collectors=(
                *(_collector(one, one.latest, now) for one in self.samplers),
                *_watched(box),
            ),
        )

    def present_figures(self) -> dict[str, Figures]:
        """By UUID, from the sources whose last reading is the present."""
        now = self.monotonic()
        merged: dict[str, Figures] = {}
        for sampler in self.figures:
            present = _present(sampler, now)
            if present is not None:
                merged.update(present)
        return merged


def stale(readings: Readings) -> list[str]:
    """The collectors that hang: no attempt ended for three periods and 30 seconds. One that fails does not hang."""
    now = readings.monotonic()
    return [
        sampler.name
        for sampler in readings.samplers
        if (tried := sampler.latest.tried_at) is None or now - tried > 3 * sampler.period_s + STALE_AFTER_S
    ]


T = TypeVar("T")


def _present(sampler: Sampler[T], now: float) -> T | None:
    sample = sampler.latest
    fresh = sample.value_at is not None and now - sample.value_at < STALE_AFTER_S
    return sample.value if fresh else None


def _gpus(
    known: Known, figures: Mapping[str, Figures], accounts: Accounts, xids: Mapping[str, Mapping[int, XidSeen]]
) -> tuple[GpuView, ...]:
    found = []
    for one in known.gpus:
        uuid = one.gpu.uuid
        now = figures.get(uuid, _UNKNOWN)
        found.append(
            GpuView(
                index=one.index,
                gpu=one.gpu,
                figures=now,
                down=_down_reason(one, now),
                energy_joules=accounts.energy_joules.get(uuid, now.energy_joules),
                xids=xids.get(uuid, {}),
            )
        )
    return tuple(found)


_UNKNOWN = Figures()


def _down_reason(one: KnownGpu, figures: Figures) -> str:
    return figures.lost or ("" if one.present else "the last detection did not find it")


def _drivers(known: Known, told: Sequence[DriverFacts]) -> tuple[DriverFacts, ...]:
    """Those of the GPUs that are there, from the source where it knows its driver."""
    by_backend = {one.backend: one for one in told}
    detected = {
        DriverFacts(one.backend, one.driver, cuda=known.facts.cuda_version if one.backend == "cuda" else "")
        for one in known.present
    }
    found = {by_backend.get(one.backend, one) for one in detected}
    return tuple(sorted(found, key=lambda one: (one.backend, one.driver)))


def _watched(box: BoxFacts | None) -> Iterator[CollectorView]:
    """What the watcher reads, each for itself."""
    if box is not None:
        yield from (CollectorView(name, ok=name not in box.problems) for name in box.sources)


def _collector(sampler: Sampler[Any], sample: Sample[Any], now: float) -> CollectorView:
    age = None if sample.value_at is None else now - sample.value_at
    return CollectorView(sampler.name, sample.ok, sample.duration_s, age, sampler.period_s)
