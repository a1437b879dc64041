"""Which series a panel shows, and what they are called."""

from __future__ import annotations

# The page's choices, as matchers: of a box, of a GPU of it, of a job, of a job on a GPU.
ON_BOX = 'instance=~"$instance"'
ON_GPU = f'{ON_BOX},gpu=~"$gpu"'
OF_JOB = f'{ON_BOX},project_id=~"$project"'
OF_JOB_ON_GPU = f'{ON_GPU},project_id=~"$project"'
OF_EXPORTER = f'job="gpurig",{ON_BOX}'

# How a series is called.
GPU_NAME = "{{instance}} GPU {{gpu}}"
JOB_NAME = "job {{job_id}} (project {{project_id}})"
