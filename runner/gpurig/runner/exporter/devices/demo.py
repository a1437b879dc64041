"""Two GPUs that do not exist, for looking at dashboards and for tests: what they do depends on the clock alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from gpurig.provisioning.facts import Gpu, HostFacts
from gpurig.runner.exporter.devices.figures import Figures

_MIB = 1024**2

DEMO_FACTS = HostFacts(
    gpus=(
        Gpu(
            backend="cuda",
            uuid="GPU-00000000-0000-4000-8000-000000000001",
            name="NVIDIA GeForce RTX 4090",
            pci_address="0000:01:00.0",
            memory_bytes=24564 * _MIB,
            arch="sm-89",
            driver="demo",
        ),
        Gpu(
            backend="rocm",
            uuid="0x0000000000000002",
            name="AMD Radeon RX 7900 XTX",
            pci_address="0000:03:00.0",
            memory_bytes=24560 * _MIB,
            arch="gfx1100",
            driver="demo",
        ),
    ),
    cuda_version="12.8",
)

_IDLE_WATTS, _LIMIT_WATTS = 22.0, 355.0
_IDLE_CELSIUS, _LOAD_CELSIUS = 38.0, 71.0
_JOB_S, _GAP_S = 240.0, 60.0


class DemoSource:
    """Jobs of four minutes with a minute between them; the second GPU runs half a job later than the first."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Take the clock, in seconds."""
        self._now = now

    def read(self, gpus: Sequence[Gpu]) -> Mapping[str, Figures]:
        """Figures by UUID, a function of the time."""
        return {gpu.uuid: _at(self._now() + index * _JOB_S / 2, gpu) for index, gpu in enumerate(gpus)}


def _at(now: float, gpu: Gpu) -> Figures:
    phase = now % (_JOB_S + _GAP_S)
    running = phase < _JOB_S
    # It warms up within half a minute, and what it does trembles a little.
    warm = min(1.0, phase / 30) if running else max(0.0, 1 - (phase - _JOB_S) / 30)
    busy = min(1.0, 0.9 + 0.08 * math.sin(now / 3)) if running else 0.0
    loaded = 0.71 if running else 0.02
    return Figures(
        memory_used_bytes=int((gpu.memory_bytes or 0) * loaded),
        utilization_ratio=round(busy, 2),
        temperature_celsius=round(_IDLE_CELSIUS + (_LOAD_CELSIUS - _IDLE_CELSIUS) * warm),
        power_watts=round(_IDLE_WATTS + (_LIMIT_WATTS - _IDLE_WATTS) * 0.9 * busy, 1),
        power_limit_watts=_LIMIT_WATTS,
    )
