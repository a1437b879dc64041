"""The metrics of a scrape, from what the samplers know. Names, units and labels: docs/metrics.md."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gpurig.common.terminal import harmless
from gpurig.common.version import __version__
from gpurig.provisioning.vram import GIB, vram_class_gb
from gpurig.runner.exporter.devices.figures import Figures
from gpurig.runner.exporter.devices.inventory import Known, KnownGpu
from gpurig.runner.exporter.runner_facts import RunnerEntry
from gpurig.runner.exporter.sampler import Sampler

# Readings older than this are not the present: the series end instead of repeating the last value.
STALE_AFTER_S = 30.0


@dataclass(frozen=True)
class Samplers:
    """Where the metrics come from.

    Attributes:
        inventory: the GPUs; None for a box that is served without any.
        figures: their readings, by source.
        runner: the runner entries.
    """

    inventory: Sampler[Known] | None
    figures: Sequence[Sampler[Mapping[str, Figures]]]
    runner: Sampler[tuple[RunnerEntry, ...] | None]

    @property
    def every(
        self,
    ) -> tuple[Sampler[Known] | Sampler[Mapping[str, Figures]] | Sampler[tuple[RunnerEntry, ...] | None], ...]:
        """All of them."""
        return (*([self.inventory] if self.inventory else []), *self.figures, self.runner)


class GpurigCollector(Collector):
    """Turns the latest samples into metric families; touches no device."""

    def __init__(self, samplers: Samplers, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Take the samplers and the clock that they use."""
        self._samplers = samplers
        self._monotonic = monotonic

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Every family; a source that fails lacks its own and leaves the rest."""
        yield _family(
            "gpurig_build_info",
            "The exporter's version.",
            [({"version": __version__, "python": platform.python_version()}, 1)],
        )
        known = self._samplers.inventory.value if self._samplers.inventory else None
        if known is not None:
            yield from _gpu_families(known, self._figures())
            yield from _detection_families(known)
        entries = self._samplers.runner.value
        if entries is not None:
            yield from _runner_families(entries)
        yield from self._collector_families()

    def _figures(self) -> dict[str, Figures]:
        """By UUID, from the sources whose last reading is the present."""
        now = self._monotonic()
        merged: dict[str, Figures] = {}
        for sampler in self._samplers.figures:
            sample = sampler.latest
            if sample.value is not None and sample.value_at is not None and now - sample.value_at < STALE_AFTER_S:
                merged.update(sample.value)
        return merged

    def _collector_families(self) -> Iterator[GaugeMetricFamily]:
        now = self._monotonic()
        samples = [(sampler.name, sampler.latest) for sampler in self._samplers.every]
        yield _family(
            "gpurig_collector_success",
            "1 when the collector's last reading succeeded.",
            [({"collector": name}, float(sample.ok)) for name, sample in samples],
        )
        yield _family(
            "gpurig_collector_duration_seconds",
            "How long the collector's last reading took.",
            [({"collector": name}, sample.duration_s) for name, sample in samples],
        )
        yield _family(
            "gpurig_collector_age_seconds",
            "Time since the collector's last successful reading.",
            [({"collector": name}, now - sample.value_at) for name, sample in samples if sample.value_at is not None],
        )


Rows = Sequence[tuple[Mapping[str, str], float | None]]


def _family(name: str, text: str, rows: Rows) -> GaugeMetricFamily:
    """A gauge; rows without a value are left out, and all rows have the same labels."""
    names = list(rows[0][0]) if rows else []
    family = GaugeMetricFamily(name, text, labels=names)
    for labels, value in rows:
        if value is not None:
            family.add_metric([harmless(label) for label in labels.values()], value)
    return family


def _gpu_families(known: Known, figures: Mapping[str, Figures]) -> Iterator[GaugeMetricFamily]:
    gpus = known.gpus

    def rows(value: Callable[[KnownGpu, Figures], float | None]) -> Rows:
        return [(_labels(one), value(one, figures.get(one.gpu.uuid, Figures()))) for one in gpus]

    yield _family(
        "gpurig_gpu_info",
        "What the GPU is.",
        [
            (
                {
                    **_labels(one),
                    "name": one.gpu.name,
                    "arch": one.gpu.arch,
                    "backend": one.gpu.backend,
                    "pci": one.gpu.pci_address,
                    "driver": one.gpu.driver,
                },
                1,
            )
            for one in gpus
        ],
    )
    reasons = {one.gpu.uuid: _down_reason(one, figures) for one in gpus}
    yield _family(
        "gpurig_gpu_up",
        "1 when the GPU is there and answers; 0 for one that was there and is not.",
        rows(lambda one, _: float(not reasons[one.gpu.uuid])),
    )
    yield _family(
        "gpurig_gpu_down_info",
        "Why a GPU is down.",
        [({**_labels(one), "reason": reasons[one.gpu.uuid]}, 1) for one in gpus if reasons[one.gpu.uuid]],
    )
    yield _family(
        "gpurig_gpu_memory_total_bytes", "Memory that jobs can use.", rows(lambda one, _: one.gpu.memory_bytes)
    )
    yield _family(
        "gpurig_gpu_vram_class_bytes",
        "The size the card is sold as, which its vram tag says.",
        rows(lambda one, _: _class_bytes(one.gpu.memory_bytes)),
    )
    yield _family("gpurig_gpu_memory_used_bytes", "Memory in use.", rows(lambda _, now: now.memory_used_bytes))
    yield _family(
        "gpurig_gpu_utilization_ratio",
        "Share of the driver's last sampling period in which the GPU worked.",
        rows(lambda _, now: now.utilization_ratio),
    )
    yield _family(
        "gpurig_gpu_temperature_celsius", "The GPU's temperature.", rows(lambda _, now: now.temperature_celsius)
    )
    yield _family("gpurig_gpu_power_watts", "Power it takes now.", rows(lambda _, now: now.power_watts))
    yield _family(
        "gpurig_gpu_power_limit_watts", "Power the driver lets it take.", rows(lambda _, now: now.power_limit_watts)
    )


def _labels(one: KnownGpu) -> dict[str, str]:
    return {"gpu": str(one.index), "uuid": one.gpu.uuid}


def _down_reason(one: KnownGpu, figures: Mapping[str, Figures]) -> str:
    lost = figures.get(one.gpu.uuid, Figures()).lost
    return lost or ("" if one.present else "the last detection did not find it")


def _class_bytes(memory_bytes: int | None) -> int | None:
    size = vram_class_gb(memory_bytes) if memory_bytes is not None else None
    return None if size is None else size * GIB


def _detection_families(known: Known) -> Iterator[GaugeMetricFamily]:
    counts: dict[str, int] = {}
    for problem in known.facts.problems:
        counts[problem.source] = counts.get(problem.source, 0) + 1
    yield _family(
        "gpurig_detection_problems",
        "Problems the last detection met; `gpurig detect` names them.",
        [({"source": source}, count) for source, count in sorted(counts.items())],
    )
    yield _family(
        "gpurig_detection_ignored_gpus",
        "GPUs that are no runner GPUs: integrated ones beside a card, too old ones.",
        [({}, len(known.facts.ignored))],
    )


def _runner_families(entries: Sequence[RunnerEntry]) -> Iterator[GaugeMetricFamily]:
    yield _family("gpurig_runner_entries", "Runner entries of this box.", [({}, len(entries))])
    yield _family(
        "gpurig_runner_info",
        "A runner entry: its number in GitLab, its description, its tags.",
        [
            ({"runner_id": str(one.id), "description": one.description, "tags": ",".join(one.tags)}, 1)
            for one in entries
        ],
    )
    yield _family(
        "gpurig_runner_token_expiry_timestamp_seconds",
        "When the runner entry's token ends; no series for one that never does.",
        [({"runner_id": str(one.id)}, one.expires_at.timestamp() if one.expires_at else None) for one in entries],
    )
