"""The dashboard. Names are those of exposition/catalogue.py and of deploy/prometheus/rules/recording.yml."""

from __future__ import annotations

from dashboard.box_rows import BOX, EXPORTER
from dashboard.fleet_row import FLEET
from dashboard.gpu_row import GPU
from dashboard.job_rows import JOBS, PROJECTS
from dashboard.model import Dashboard, Variable

DASHBOARD = Dashboard(
    uid="gpurig",
    title="gpurig",
    text="GPUs of GitLab CI runners, and the jobs and projects that use them.",
    variables=(
        Variable("instance", "Box", "label_values(gpurig_build_info, instance)"),
        Variable("gpu", "GPU", 'label_values(gpurig_gpu_info{instance=~"$instance"}, gpu)', numeric=True),
        Variable(
            "project",
            "Project",
            'label_values(gpurig_project_jobs_total{instance=~"$instance"}, project_id)',
            numeric=True,
        ),
    ),
    rows=(FLEET, GPU, JOBS, PROJECTS, BOX, EXPORTER),
)
