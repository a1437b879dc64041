"""The shape of a metric family's description, and the usual ways to get its values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from gpurig.runner.exporter.exposition.view import GpuView, View
from gpurig.runner.exporter.jobs.model import GpuUse, JobUse, ProjectUse

# The values of the labels, in their order, and the series' value; None where that is not known: no series.
Row = tuple[tuple[str, ...], float | None]
Rows = Callable[[View], Iterable[Row]]


@dataclass(frozen=True)
class Metric:
    """One metric family.

    Attributes:
        name: as Prometheus' text format shows it; a counter's ends in `_total`.
        kind: its type.
        unit: of its value, for people.
        labels: in their order.
        text: its HELP line.
        rows: its series at a moment.
        nvidia, amd: where the value is from; "" where that vendor's cards do not have it.
    """

    name: str
    kind: Literal["gauge", "counter", "unknown"]
    unit: str
    labels: tuple[str, ...]
    text: str
    rows: Rows
    nvidia: str = ""
    amd: str = ""


def of_gpus(value: Callable[[GpuView], float | None]) -> Rows:
    """One series a GPU, labels gpu and uuid."""
    return lambda view: [(one.labels, value(one)) for one in view.gpus]


def of_gpus_by(values: Callable[[GpuView], Mapping[str, float]]) -> Rows:
    """One series for each entry of a GPU's mapping, whose key is the label after gpu and uuid."""
    return lambda view: [((*one.labels, key), value) for one in view.gpus for key, value in values(one).items()]


def job_labels(job: JobUse) -> tuple[str, str, str, str]:
    """Values of the labels job_id, project_id, pipeline_id and runner."""
    return job.key.job_id, job.key.project_id, job.key.pipeline_id, job.key.runner


def of_uses(value: Callable[[GpuUse], float | None]) -> Rows:
    """One series for each GPU of each job, labels gpu and the job's."""
    return lambda view: [
        ((view.gpu_label(use.uuid), *job_labels(job)), value(use)) for job in view.accounts.jobs for use in job.uses
    ]


def of_jobs(value: Callable[[JobUse], float | None]) -> Rows:
    """One series a job."""
    return lambda view: [(job_labels(job), value(job)) for job in view.accounts.jobs]


def of_projects(value: Callable[[ProjectUse], float | None]) -> Rows:
    """One series a project, label project_id."""
    return lambda view: [((one.project_id,), value(one)) for one in view.accounts.projects]
