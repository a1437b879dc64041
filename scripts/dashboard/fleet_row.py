"""All boxes at a glance."""

from __future__ import annotations

from dashboard.model import Column, Panel, Query, Row, State
from dashboard.selection import GPU_NAME, OF_EXPORTER, ON_BOX, ON_GPU

_UP = (State(1, "up", "green"), State(0, "down", "red"))


def _by_gpu(metric: str) -> str:
    """One value a GPU, for the table of GPUs."""
    return f"max by (instance, gpu, uuid) ({metric}{{{ON_GPU}}})"


def _tile(
    title: str, *queries: Query, unit: str = "none", width: int = 3, text: str = "", bad_at: float | None = None
) -> Panel:
    """A small panel of one or two numbers."""
    return Panel(title, queries, unit, kind="stat", width=width, height=4, text=text, bad_at=bad_at)


FLEET = Row(
    "Fleet",
    (
        _tile(
            "Boxes", Query(f"sum(up{{{OF_EXPORTER}}})", "answer"), Query(f"count(up{{{OF_EXPORTER}}})", "all"), width=4
        ),
        _tile(
            "GPUs",
            Query(f"sum(gpurig_gpu_up{{{ON_GPU}}})", "up"),
            Query(f"count(gpurig_gpu_up{{{ON_GPU}}})", "all"),
            width=4,
        ),
        _tile("Jobs that run", Query(f"sum(instance:gpurig_runner_jobs_running:sum{{{ON_BOX}}})", "jobs")),
        _tile(
            "GPUs' utilization",
            Query(f"avg(gpurig_gpu_utilization_ratio{{{ON_GPU}}})", "average"),
            unit="percentunit",
        ),
        _tile(
            "GPU memory in use",
            Query(
                f"sum(gpurig_gpu_memory_used_bytes{{{ON_GPU}}}) / sum(gpurig_gpu_memory_total_bytes{{{ON_GPU}}})",
                "used",
            ),
            unit="percentunit",
        ),
        _tile("Power", Query(f"sum(gpurig_gpu_power_watts{{{ON_GPU}}})", "power"), unit="watt"),
        _tile(
            "Alerts that fire",
            Query(f'count(ALERTS{{alertname=~"Gpurig.*",alertstate="firing",{ON_BOX}}}) or vector(0)', "alerts"),
            width=4,
            text="Of the rules in deploy/prometheus; docs/alerts.md says what to do.",
            bad_at=1,
        ),
        Panel(
            "GPUs now",
            (
                Query(f"max by (instance, gpu, uuid, name, arch, driver) (gpurig_gpu_info{{{ON_GPU}}})"),
                Query(_by_gpu("gpurig_gpu_up")),
                Query(_by_gpu("gpurig_gpu_utilization_ratio")),
                Query(_by_gpu("gpu:gpurig_gpu_memory_used:ratio")),
                Query(_by_gpu("gpurig_gpu_memory_total_bytes")),
                Query(_by_gpu("gpu:gpurig_gpu_temperature_celsius:hottest")),
                Query(_by_gpu("gpurig_gpu_power_watts")),
                Query(_by_gpu("gpurig_gpu_vram_class_bytes")),
                Query(f"max by (instance, gpu, uuid, reason) (gpurig_gpu_down_info{{{ON_GPU}}})", empty_is_good=True),
            ),
            kind="table",
            width=24,
            columns=(
                Column("instance", "Box"),
                Column("gpu", "GPU"),
                Column("name", "Name"),
                Column("arch", "Architecture"),
                Column("driver", "Driver"),
                Column("B", "State", states=_UP),
                Column("reason", "Why it is down"),
                Column("C", "Utilization", "percentunit"),
                Column("D", "Memory in use", "percentunit"),
                Column("E", "Memory", "bytes"),
                Column("H", "Sold as", "bytes"),
                Column("F", "Hottest", "celsius"),
                Column("G", "Power", "watt"),
                Column("uuid", "UUID"),
            ),
            sort_by="GPU",
        ),
        Panel(
            "State of the GPUs",
            (Query(f"gpurig_gpu_up{{{ON_GPU}}}", GPU_NAME),),
            kind="state-timeline",
            width=24,
            height=6,
            states=_UP,
        ),
    ),
)
