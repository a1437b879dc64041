"""Two GPUs that do not exist, for looking at dashboards and for tests: what they do depends on the clock alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gpurig.provisioning.facts import Gpu, HostFacts
from gpurig.runner.exporter.demo_schedule import BUSY_WATTS, IDLE_WATTS, LIMIT_WATTS, DemoJob, job_at
from gpurig.runner.exporter.devices.figures import Figures, GpuProcess
from gpurig.runner.exporter.exposition.gpu_metrics import THROTTLE_REASONS

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

_IDLE_CELSIUS, _LOAD_CELSIUS = 38.0, 71.0
_COOLING_S = 30.0


class DemoSource:
    """Reads what demo_schedule.py says that happens."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Take the clock, Unix time in seconds."""
        self._now = now

    def read(self, gpus: Sequence[Gpu]) -> Mapping[str, Figures]:
        """Figures by UUID, a function of the time."""
        now = self._now()
        return {gpu.uuid: _figures(gpu, job_at(index, now)) for index, gpu in enumerate(gpus)}


def _figures(gpu: Gpu, job: DemoJob) -> Figures:
    memory_bytes = gpu.memory_bytes or 0
    running = job.ended_at is None
    # It warms up within half a minute, and cools down as fast.
    warm = min(1.0, job.running_s / _COOLING_S)
    if job.ended_at is not None:
        warm = max(0.0, 1 - (job.at - job.ended_at) / _COOLING_S)
    celsius = round(_IDLE_CELSIUS + (_LOAD_CELSIUS - _IDLE_CELSIUS) * warm)
    held = int(memory_bytes * job.memory_ratio)
    held_by = "idle" if not running else "power_cap" if job.busy_ratio > 0.95 else ""
    process = GpuProcess(4000 + int(job.key.job_id) % 20000, memory_bytes=held, utilization_ratio=job.busy_ratio)
    both = Figures(
        memory_used_bytes=int(memory_bytes * 0.02) + held,
        utilization_ratio=round(job.busy_ratio, 2),
        memory_utilization_ratio=round(job.busy_ratio * 0.6, 2),
        temperature_celsius=celsius,
        memory_temperature_celsius=celsius + 8,
        temperature_limits_celsius={"slowdown": 90, "shutdown": 95, "memory": 105},
        power_watts=round(IDLE_WATTS + (BUSY_WATTS - IDLE_WATTS) * job.busy_ratio, 1),
        power_limit_watts=LIMIT_WATTS,
        clocks_hertz={"graphics": 2520e6 if running else 210e6, "memory": 10501e6 if running else 405e6},
        max_clocks_hertz={"graphics": 3105e6, "memory": 10501e6},
        fan_ratio=round(0.3 + 0.3 * warm, 2),
        throttle_reasons={reason: float(reason == held_by) for reason in THROTTLE_REASONS},
        ecc_errors={"corrected": 3, "uncorrected": 0},
        retired_pages={"remapped_correctable": 1, "remapped_uncorrectable": 0},
        memory_repair_pending=False,
        pcie_generation=4 if running else 1,
        pcie_width=16,
        pcie_max_generation=4,
        pcie_max_width=16,
        pcie_replays=2,
        processes=(process,) if running else (),
    )
    if gpu.backend == "rocm":
        return replace(
            both, hotspot_temperature_celsius=celsius + 14, ecc_errors={"uncorrected": 0}, retired_pages={"bad": 0}
        )
    return replace(
        both,
        memory_reserved_bytes=480 * _MIB,
        encoder_utilization_ratio=0.0,
        decoder_utilization_ratio=0.0,
        temperature_limits_celsius={**both.temperature_limits_celsius, "max_operating": 83},
        clocks_hertz={**both.clocks_hertz, "sm": both.clocks_hertz["graphics"], "video": 1950e6 if running else 555e6},
        max_clocks_hertz={**both.max_clocks_hertz, "sm": 3105e6, "video": 2415e6},
        performance_state=2 if running else 8,
    )
