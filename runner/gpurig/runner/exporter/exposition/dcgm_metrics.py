"""Our readings under the names, labels and units of NVIDIA's dcgm-exporter, so that a board made for it shows data.

Names, types and units: etc/default-counters.csv of github.com/NVIDIA/dcgm-exporter; labels and their order:
internal/pkg/rendermetrics/render_metrics.go there, as its releases up to 4.5.3-4.8.2 write them (the commit after
renames Hostname to hostname). What takes DCGM's profiling module (DCGM_FI_PROF_*), NVLink and vGPU are not there.
"""

from __future__ import annotations

from collections.abc import Callable

from gpurig.runner.exporter.exposition.metric import Metric, Rows
from gpurig.runner.exporter.exposition.view import GpuView

_LABELS = ("gpu", "UUID", "pci_bus_id", "device", "modelName", "Hostname", "DCGM_FI_DRIVER_VERSION")
_MIB = 1024**2
_DEVICES = {"cuda": "nvidia", "rocm": "amd"}


def _rows(value: Callable[[GpuView], float | None]) -> Rows:
    return lambda view: [(_label_values(one, view.hostname), value(one)) for one in view.gpus]


def _label_values(one: GpuView, hostname: str) -> tuple[str, ...]:
    gpu = one.gpu
    # DCGM writes the PCI domain with eight digits, as NVML does.
    pci = f"{gpu.pci_address.partition(':')[0]:0>8}:{gpu.pci_address.partition(':')[2]}" if gpu.pci_address else ""
    device = f"{_DEVICES.get(gpu.backend, gpu.backend)}{one.index}"
    return str(one.index), gpu.uuid, pci.upper(), device, gpu.name, hostname, gpu.driver


def _scaled(value: float | None, factor: float) -> float | None:
    """In DCGM's unit; without the crumbs that a ratio leaves (0.29 * 100 is 28.999999999999996)."""
    return None if value is None else round(value * factor, 6)


def _clock(one: GpuView, domain: str) -> float | None:
    return one.figures.clocks_hertz.get(domain)


def _sm_clock(one: GpuView) -> float | None:
    """AMD's one clock of the chip is its graphics clock."""
    sm = _clock(one, "sm")
    return sm if sm is not None else _clock(one, "graphics")


def _mib(value: float | None) -> float | None:
    return None if value is None else value // _MIB


def _free_mib(one: GpuView) -> float | None:
    total, used = one.gpu.memory_bytes, one.figures.memory_used_bytes
    if total is None or used is None:
        return None
    return max(0, total - used - (one.figures.memory_reserved_bytes or 0)) // _MIB


def _last_xid(one: GpuView) -> float | None:
    if one.gpu.backend != "cuda" or one.down:
        return None
    return max(one.xids, key=lambda xid: one.xids[xid].last_seen, default=0)


def _gauge(field: str, unit: str, text: str, value: Callable[[GpuView], float | None]) -> Metric:
    return Metric(f"DCGM_FI_DEV_{field}", "gauge", unit, _LABELS, text, _rows(value))


def _count(field: str, unit: str, text: str, value: Callable[[GpuView], float | None]) -> Metric:
    # A counter there. OpenMetrics demands names that end in _total of counters, and the boards ask for these.
    return Metric(f"DCGM_FI_DEV_{field}", "unknown", unit, _LABELS, text, _rows(value))


DCGM_METRICS = (
    _gauge("SM_CLOCK", "MHz", "Clock rate of the SMs.", lambda one: _scaled(_sm_clock(one), 1e-6)),
    _gauge("MEM_CLOCK", "MHz", "Clock rate of the memory.", lambda one: _scaled(_clock(one, "memory"), 1e-6)),
    _gauge("GPU_TEMP", "°C", "Temperature of the GPU.", lambda one: one.figures.temperature_celsius),
    _gauge("MEMORY_TEMP", "°C", "Temperature of the memory.", lambda one: one.figures.memory_temperature_celsius),
    _gauge("POWER_USAGE", "W", "Power it takes now.", lambda one: one.figures.power_watts),
    _count("TOTAL_ENERGY_CONSUMPTION", "mJ", "Energy it took.", lambda one: _scaled(one.energy_joules, 1000)),
    _count("PCIE_REPLAY_COUNTER", "count", "Packets sent again over PCIe.", lambda one: one.figures.pcie_replays),
    _gauge("GPU_UTIL", "%", "Utilization of the GPU.", lambda one: _scaled(one.figures.utilization_ratio, 100)),
    _gauge(
        "MEM_COPY_UTIL",
        "%",
        "Utilization of the memory.",
        lambda one: _scaled(one.figures.memory_utilization_ratio, 100),
    ),
    _gauge(
        "ENC_UTIL", "%", "Utilization of the encoder.", lambda one: _scaled(one.figures.encoder_utilization_ratio, 100)
    ),
    _gauge(
        "DEC_UTIL", "%", "Utilization of the decoder.", lambda one: _scaled(one.figures.decoder_utilization_ratio, 100)
    ),
    _gauge("XID_ERRORS", "1", "The last Xid error; 0 for none.", _last_xid),
    _gauge("FB_FREE", "MiB", "Memory that is free.", _free_mib),
    _gauge("FB_USED", "MiB", "Memory in use.", lambda one: _mib(one.figures.memory_used_bytes)),
    _gauge("FB_RESERVED", "MiB", "Memory kept by the driver.", lambda one: _mib(one.figures.memory_reserved_bytes)),
    _gauge("FB_TOTAL", "MiB", "Memory in all.", lambda one: _mib(one.gpu.memory_bytes)),
    _count("ECC_SBE_AGG_TOTAL", "count", "Corrected errors.", lambda one: one.figures.ecc_errors.get("corrected")),
    _count("ECC_DBE_AGG_TOTAL", "count", "Uncorrected errors.", lambda one: one.figures.ecc_errors.get("uncorrected")),
    _count("RETIRED_SBE", "count", "Pages retired.", lambda one: one.figures.retired_pages.get("single_bit")),
    _count("RETIRED_DBE", "count", "Pages retired.", lambda one: one.figures.retired_pages.get("double_bit")),
    _count(
        "UNCORRECTABLE_REMAPPED_ROWS",
        "count",
        "Rows remapped after uncorrectable errors.",
        lambda one: one.figures.retired_pages.get("remapped_uncorrectable"),
    ),
    _count(
        "CORRECTABLE_REMAPPED_ROWS",
        "count",
        "Rows remapped after correctable errors.",
        lambda one: one.figures.retired_pages.get("remapped_correctable"),
    ),
)
