"""Whose a GPU's work is: one reading of one GPU, shared among the containers whose processes use it.

The rules are in docs/metrics.md, "CI jobs". Everything here is pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from gpurig.runner.exporter.devices.energy import EnergyStep
from gpurig.runner.exporter.devices.figures import Figures, GpuProcess

N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Share:
    """What a container used of a GPU between two readings; None where it is not known.

    Attributes:
        memory_bytes: what its processes hold at the second reading.
        busy_s: seconds for which it kept the GPU busy.
        joules: the energy that this took.
    """

    memory_bytes: int | None
    busy_s: float | None
    joules: float | None


def shares(
    figures: Figures,
    owners: Mapping[int, str | None],
    *,
    seconds: float | None,
    energy: EnergyStep,
    idle_watts: float,
) -> dict[str, Share]:
    """The share of each container; what processes outside of containers use is nobody's.

    The sums over the shares exceed neither the GPU's busy time (utilization x seconds) nor its energy.

    Args:
        figures: the second reading.
        owners: the container of each process, by pid; None, or no entry, for one that is in none.
        seconds: since the first reading; None where that is too long ago to say who worked.
        energy: what the GPU took meanwhile.
        idle_watts: what it takes when nothing runs.
    """
    processes = figures.processes
    if not processes:
        return {}
    utilization = _ratio(figures.utilization_ratio)
    weights = _told_utilization(processes, utilization)
    if weights is None:
        by_memory = _memory_shares(processes)
        weights = by_memory if utilization is None else [utilization * share for share in by_memory]
        busy_known = utilization is not None
    else:
        busy_known = True
    total = sum(weights)
    used = utilization if utilization is not None else min(1.0, total) if busy_known else 0.0
    active: float | None = None
    if energy.joules is not None and energy.seconds is not None:
        active = max(0.0, energy.joules - idle_watts * (1.0 - used) * energy.seconds)
    result: dict[str, Share] = {}
    for process, weight in zip(processes, weights, strict=True):
        container = owners.get(process.pid)
        if container is None:
            continue
        memory = process.memory_bytes
        share = Share(
            memory_bytes=memory if memory is None else max(0, memory),
            busy_s=weight * max(0.0, seconds) if busy_known and seconds is not None else None,
            joules=None if active is None else active * (weight / total) if total > 0 else 0.0,
        )
        before = result.get(container)
        result[container] = share if before is None else _sum(before, share)
    return result


def _ratio(value: float | None) -> float | None:
    """Within 0 and 1; NaN is not known."""
    return None if value is None or math.isnan(value) else min(1.0, max(0.0, value))


def _told_utilization(processes: tuple[GpuProcess, ...], utilization: float | None) -> list[float] | None:
    """Each process' share of the time, as the driver tells it; None where it tells of none.

    Where it tells of some, the others did nothing. Together they are no busier than the GPU: the two figures come from
    windows that differ.
    """
    told = [_ratio(process.utilization_ratio) for process in processes]
    if all(one is None for one in told):
        return None
    known = [one or 0.0 for one in told]
    total, most = sum(known), 1.0 if utilization is None else utilization
    return known if total <= most else [one * most / total for one in known]


def _memory_shares(processes: tuple[GpuProcess, ...]) -> list[float]:
    """Each process' share of the memory that they hold together; equal shares where none is known to hold any."""
    held = [max(0, process.memory_bytes or 0) for process in processes]
    total = sum(held)
    if total == 0:
        return [1 / len(processes)] * len(processes)
    return [one / total for one in held]


def _sum(one: Share, other: Share) -> Share:
    return Share(
        memory_bytes=_add(one.memory_bytes, other.memory_bytes),
        busy_s=_add(one.busy_s, other.busy_s),
        joules=_add(one.joules, other.joules),
    )


def _add(one: N | None, other: N | None) -> N | None:
    if one is None:
        return other
    return one if other is None else one + other
