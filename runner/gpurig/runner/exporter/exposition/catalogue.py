"""Every metric that the exporter has: name, type, unit, labels, its series, and where each vendor's value is from.

docs/metrics.md shows this table (`make docs` writes it there), and a test holds them together; the alerts and the
dashboard in deploy/ use no other names. DCGM_METRICS, of `--dcgm-names`, are the same readings under others' names.
"""

from __future__ import annotations

from gpurig.runner.exporter.exposition.box_metrics import BOX_METRICS
from gpurig.runner.exporter.exposition.gpu_metrics import GPU_METRICS
from gpurig.runner.exporter.exposition.job_metrics import JOB_METRICS

METRICS = (*GPU_METRICS, *JOB_METRICS, *BOX_METRICS)
