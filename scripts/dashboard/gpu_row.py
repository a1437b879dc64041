"""What each GPU does."""

from __future__ import annotations

from dashboard.model import Column, Panel, Query, Row, State
from dashboard.selection import GPU_NAME, ON_GPU

_HOLDS = (State(0, "no", "transparent"), State(1, "yes", "orange"))
_PENDING = (State(0, "no", "green"), State(1, "reset needed", "red"))


def _of_gpu(metric: str, told: str = "", *, dashed: bool = False) -> Query:
    """One series a GPU; `told` says which one, where a panel has several."""
    return Query(f"{metric}{{{ON_GPU}}}", f"{GPU_NAME} {told}".rstrip(), dashed=dashed)


GPU = Row(
    "GPU",
    (
        Panel(
            "Utilization",
            (_of_gpu("gpurig_gpu_utilization_ratio"),),
            "percentunit",
            text="Share of the time in which the GPU worked, however little of it.",
            minimum=0,
            maximum=1,
        ),
        Panel(
            "Memory",
            (
                _of_gpu("gpurig_gpu_memory_used_bytes", "used"),
                _of_gpu("gpurig_gpu_memory_reserved_bytes", "reserved by the driver"),
                _of_gpu("gpurig_gpu_memory_total_bytes", "total", dashed=True),
            ),
            "bytes",
            minimum=0,
        ),
        Panel(
            "Memory, encoder and decoder at work",
            (
                _of_gpu("gpurig_gpu_memory_utilization_ratio", "memory"),
                _of_gpu("gpurig_gpu_encoder_utilization_ratio", "encoder"),
                _of_gpu("gpurig_gpu_decoder_utilization_ratio", "decoder"),
            ),
            "percentunit",
            text="Share of the time in which memory was read or written, and in which the video units worked.",
            minimum=0,
            maximum=1,
        ),
        Panel(
            "Power",
            (
                _of_gpu("gpurig_gpu_power_watts"),
                _of_gpu("gpurig_gpu_power_limit_watts", "limit", dashed=True),
            ),
            "watt",
            minimum=0,
        ),
        Panel(
            "Energy in this time",
            (Query(f"increase(gpurig_gpu_energy_joules_total{{{ON_GPU}}}[$__range])", GPU_NAME),),
            "joule",
            kind="bargauge",
            text="3.6 MJ are a kilowatt-hour.",
            minimum=0,
        ),
        Panel(
            "Fans",
            (_of_gpu("gpurig_gpu_fan_speed_ratio"),),
            "percentunit",
            text="Share of the full speed, of the fastest fan.",
            minimum=0,
            maximum=1,
        ),
        Panel(
            "Temperatures of the chip",
            (
                _of_gpu("gpurig_gpu_temperature_celsius"),
                _of_gpu("gpurig_gpu_hotspot_temperature_celsius", "hottest place"),
                Query(
                    f'gpurig_gpu_temperature_limit_celsius{{{ON_GPU},limit!="memory"}}',
                    f"{GPU_NAME} {{{{limit}}}}",
                    dashed=True,
                ),
            ),
            "celsius",
            text="Dashed: where it slows down, where it shuts down. For AMD these are about its hottest place.",
        ),
        Panel(
            "Temperatures of the memory",
            (
                _of_gpu("gpurig_gpu_memory_temperature_celsius"),
                Query(
                    f'gpurig_gpu_temperature_limit_celsius{{{ON_GPU},limit="memory"}}', f"{GPU_NAME} limit", dashed=True
                ),
            ),
            "celsius",
        ),
        Panel(
            "What holds the clocks down",
            (
                Query(
                    f'gpurig_gpu_throttle_reason{{{ON_GPU},reason=~"power_cap|hw_.*|sw_thermal"}}',
                    f"{GPU_NAME} {{{{reason}}}}",
                ),
            ),
            kind="state-timeline",
            states=_HOLDS,
            text="Besides idling and settings.",
        ),
        Panel(
            "Clock of the chip",
            (
                Query(f'gpurig_gpu_clock_hertz{{{ON_GPU},clock="graphics"}}', GPU_NAME),
                Query(f'gpurig_gpu_clock_max_hertz{{{ON_GPU},clock="graphics"}}', f"{GPU_NAME} highest", dashed=True),
            ),
            "hertz",
            minimum=0,
        ),
        Panel(
            "Clock of the memory",
            (
                Query(f'gpurig_gpu_clock_hertz{{{ON_GPU},clock="memory"}}', GPU_NAME),
                Query(f'gpurig_gpu_clock_max_hertz{{{ON_GPU},clock="memory"}}', f"{GPU_NAME} highest", dashed=True),
            ),
            "hertz",
            minimum=0,
        ),
        Panel(
            "Performance state",
            (_of_gpu("gpurig_gpu_performance_state"),),
            text="NVIDIA's P-state: 0 is the fastest, 8 and more is idle.",
            minimum=0,
            maximum=15,
            steps=True,
        ),
        Panel(
            "PCIe lanes",
            (
                _of_gpu("gpurig_gpu_pcie_link_width"),
                _of_gpu("gpurig_gpu_pcie_link_width_max", "possible", dashed=True),
            ),
            minimum=0,
            steps=True,
        ),
        Panel(
            "PCIe generation",
            (
                _of_gpu("gpurig_gpu_pcie_link_generation"),
                _of_gpu("gpurig_gpu_pcie_link_generation_max", "possible", dashed=True),
            ),
            text="An idle card lowers it.",
            minimum=0,
            steps=True,
        ),
        Panel(
            "PCIe packets sent again",
            (Query(f"rate(gpurig_gpu_pcie_replays_total{{{ON_GPU}}}[$__rate_interval])", GPU_NAME),),
            "cps",
            minimum=0,
        ),
        Panel(
            "Memory errors in this time",
            (Query(f"increase(gpurig_gpu_ecc_errors_total{{{ON_GPU}}}[$__range])", f"{GPU_NAME} {{{{kind}}}}"),),
            "short",
            kind="bargauge",
            text="By ECC; only cards that have it.",
            minimum=0,
        ),
        Panel(
            "Memory out of use",
            (Query(f"max by (instance, gpu, cause) (gpurig_gpu_retired_pages{{{ON_GPU}}})"),),
            kind="table",
            columns=(
                Column("instance", "Box"),
                Column("gpu", "GPU"),
                Column("cause", "Cause"),
                Column("A", "Pages or rows", "short"),
            ),
            sort_by="-Pages or rows",
        ),
        Panel(
            "Memory that waits for a reset to be taken out of use",
            (_of_gpu("gpurig_gpu_memory_repair_pending"),),
            kind="state-timeline",
            states=_PENDING,
        ),
        Panel(
            "Xid errors",
            (
                Query(f"max by (instance, gpu, xid) (gpurig_gpu_xid_last_seen_timestamp_seconds{{{ON_GPU}}}) * 1000"),
                Query(f"max by (instance, gpu, xid) (gpurig_gpu_xid_errors_total{{{ON_GPU}}})"),
            ),
            kind="table",
            columns=(
                Column("instance", "Box"),
                Column("gpu", "GPU"),
                Column("xid", "Xid"),
                Column("A", "Last seen", "dateTimeFromNow"),
                Column("B", "Count", "short"),
            ),
            sort_by="-Last seen",
            text="What the numbers mean: docs/alerts.md.",
            none="none",
        ),
        Panel(
            "Processes",
            (_of_gpu("gpurig_gpu_processes"),),
            minimum=0,
            steps=True,
        ),
    ),
)
