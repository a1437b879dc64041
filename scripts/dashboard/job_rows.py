"""Jobs, and the projects that they belong to."""

from __future__ import annotations

from dashboard.model import Column, Panel, Query, Row
from dashboard.selection import GPU_NAME, JOB_NAME, OF_JOB, OF_JOB_ON_GPU, ON_GPU

_PER_JOB = "instance, project_id, pipeline_id, job_id, runner"


def _last_of_job(metric: str, operation: str) -> str:
    """A job's last or highest value within the page's time, over its GPUs: the series ends soon after the job."""
    return f"{operation} by ({_PER_JOB}) (max_over_time({metric}{{{OF_JOB}}}[$__range]))"


def _rate_of_job(metric: str) -> str:
    return f"sum by (project_id, job_id) (rate({metric}{{{OF_JOB_ON_GPU}}}[$__rate_interval]))"


def _of_project(metric: str) -> str:
    return f"sum by (project_id) ({metric}{{{OF_JOB}}})"


def _of_project_in_range(metric: str) -> str:
    return f"sum by (project_id) (increase({metric}{{{OF_JOB}}}[$__range]))"


JOBS = Row(
    "Jobs",
    (
        Panel(
            "Jobs in this time",
            (
                Query(f"{_last_of_job('gpurig_job_start_timestamp_seconds', 'max')} * 1000"),
                Query(f"{_last_of_job('gpurig_job_end_timestamp_seconds', 'max')} * 1000"),
                Query(_last_of_job("gpurig_job_memory_peak_bytes", "max")),
                Query(_last_of_job("gpurig_job_gpu_seconds_total", "sum")),
                Query(_last_of_job("gpurig_job_energy_joules_total", "sum")),
                Query(_last_of_job("gpurig_job_oom_total", "sum")),
            ),
            kind="table",
            width=24,
            height=10,
            columns=(
                Column("job_id", "Job"),
                Column("project_id", "Project"),
                Column("pipeline_id", "Pipeline"),
                Column("A", "Start", "dateTimeAsIso"),
                Column("B", "End", "dateTimeAsIso"),
                Column("C", "Peak of memory", "bytes"),
                Column("D", "GPU time", "s"),
                Column("E", "Energy", "joule"),
                Column("F", "Out of memory", "short"),
                Column("runner", "Runner"),
                Column("instance", "Box"),
            ),
            sort_by="-Start",
            text="The peak is that of the fullest GPU; time and energy are sums over all. A running job has no end.",
        ),
        Panel(
            "Memory of jobs",
            (Query(f"gpurig_job_gpu_memory_bytes{{{OF_JOB_ON_GPU}}}", f"{GPU_NAME} {JOB_NAME}"),),
            "bytes",
            minimum=0,
            stacked=True,
        ),
        Panel(
            "GPUs that jobs keep busy",
            (Query(_rate_of_job("gpurig_job_gpu_seconds_total"), JOB_NAME),),
            "short",
            minimum=0,
            stacked=True,
        ),
        Panel(
            "Power of jobs",
            (Query(_rate_of_job("gpurig_job_energy_joules_total"), JOB_NAME),),
            "watt",
            text="A job's share of its GPUs' power; what an idle GPU takes is nobody's.",
            minimum=0,
            stacked=True,
        ),
        Panel(
            "Memory in use, and what jobs hold of it",
            (
                Query(f"gpu:gpurig_job_gpu_memory_bytes:sum{{{ON_GPU}}}", f"{GPU_NAME} jobs"),
                Query(f"gpurig_gpu_memory_used_bytes{{{ON_GPU}}}", f"{GPU_NAME} in use", dashed=True),
            ),
            "bytes",
            text="The distance is the driver's, the desktop's, or a process that outlived its job.",
            width=12,
            minimum=0,
        ),
        Panel(
            "Deaths for want of memory",
            (
                Query(
                    f"sum by (memory) (increase(gpurig_project_oom_total{{{OF_JOB}}}[$__rate_interval]))",
                    "{{memory}}",
                ),
            ),
            "short",
            text="Of the GPU's memory, or of the host's.",
            width=12,
            minimum=0,
        ),
    ),
)

PROJECTS = Row(
    "Projects",
    (
        Panel(
            "Projects",
            (
                Query(_of_project_in_range("gpurig_project_jobs_total")),
                Query(_of_project_in_range("gpurig_project_gpu_seconds_total")),
                Query(_of_project_in_range("gpurig_project_energy_joules_total")),
                Query(_of_project_in_range("gpurig_project_oom_total")),
                Query(_of_project("gpurig_project_jobs_total")),
                Query(_of_project("gpurig_project_gpu_seconds_total")),
                Query(_of_project("gpurig_project_energy_joules_total")),
            ),
            kind="table",
            width=24,
            columns=(
                Column("project_id", "Project"),
                Column("A", "Jobs", "short"),
                Column("B", "GPU time", "s"),
                Column("C", "Energy", "joule"),
                Column("D", "Out of memory", "short"),
                Column("E", "Jobs since ever", "short"),
                Column("F", "GPU time since ever", "s"),
                Column("G", "Energy since ever", "joule"),
            ),
            sort_by="-GPU time",
            text="In the page's time, and since the exporters began to count.",
        ),
        Panel(
            "GPUs that projects keep busy",
            (Query('project:gpurig_project_gpu_seconds:rate5m{project_id=~"$project"}', "project {{project_id}}"),),
            "short",
            width=12,
            text="Over all boxes.",
            minimum=0,
            stacked=True,
        ),
        Panel(
            "Power of projects",
            (Query('project:gpurig_project_energy_joules:rate5m{project_id=~"$project"}', "project {{project_id}}"),),
            "watt",
            width=12,
            text="Over all boxes.",
            minimum=0,
            stacked=True,
        ),
    ),
)
