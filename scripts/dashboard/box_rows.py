"""Boxes with their runner entries, and the exporters themselves."""

from __future__ import annotations

from dashboard.model import Column, Panel, Query, Row, State
from dashboard.selection import OF_EXPORTER, ON_BOX

_WORKS = (State(1, "works", "green"), State(0, "fails", "red"))

BOX = Row(
    "Boxes and their runners",
    (
        Panel(
            "Runner entries",
            (
                Query(f"max by (instance, runner_id, description, tags) (gpurig_runner_info{{{ON_BOX}}})"),
                Query(f"max by (instance, runner_id) (gpurig_runner_vram_bytes{{{ON_BOX}}})"),
                Query(
                    f"min by (instance, runner_id) (gpurig_runner_token_expiry_timestamp_seconds{{{ON_BOX}}}) * 1000",
                ),
            ),
            kind="table",
            width=16,
            columns=(
                Column("instance", "Box"),
                Column("runner_id", "Runner"),
                Column("description", "Description"),
                Column("tags", "Tags"),
                Column("B", "Memory promised", "bytes"),
                Column("C", "Token ends", "dateTimeFromNow"),
            ),
            sort_by="Box",
        ),
        Panel(
            "Runner entries of each box",
            (Query(f"gpurig_runner_entries{{{ON_BOX}}}", "{{instance}}"),),
            kind="stat",
            width=4,
        ),
        Panel(
            "GPUs of each box",
            (Query(f"instance:gpurig_gpu_up:count{{{ON_BOX}}}", "{{instance}}"),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Jobs that run",
            (Query(f"gpurig_runner_jobs_running{{{ON_BOX}}}", "{{instance}} {{runner}}"),),
            minimum=0,
            stacked=True,
            steps=True,
        ),
        Panel(
            "Disk that is free",
            (
                Query(
                    f"gpurig_disk_free_bytes{{{ON_BOX}}} / gpurig_disk_total_bytes{{{ON_BOX}}}",
                    "{{instance}} {{purpose}}",
                ),
            ),
            "percentunit",
            minimum=0,
            maximum=1,
        ),
        Panel(
            "Images and models",
            (
                Query(f"gpurig_images_bytes{{{ON_BOX}}}", "{{instance}} {{kind}} images"),
                Query(f"gpurig_models_bytes{{{ON_BOX}}}", "{{instance}} models"),
            ),
            "bytes",
            minimum=0,
        ),
    ),
)

EXPORTER = Row(
    "Exporters",
    (
        Panel(
            "Collectors",
            (Query(f"gpurig_collector_success{{{ON_BOX}}}", "{{instance}} {{collector}}"),),
            kind="state-timeline",
            states=_WORKS,
        ),
        Panel(
            "Age of the readings",
            (
                Query(f"gpurig_collector_age_seconds{{{ON_BOX}}}", "{{instance}} {{collector}}"),
                Query(f"gpurig_collector_period_seconds{{{ON_BOX}}}", "{{instance}} {{collector}} period", dashed=True),
            ),
            "s",
            minimum=0,
        ),
        Panel(
            "Time that a reading takes",
            (Query(f"gpurig_collector_duration_seconds{{{ON_BOX}}}", "{{instance}} {{collector}}"),),
            "s",
            minimum=0,
        ),
        Panel(
            "Time that a scrape takes",
            (Query(f"scrape_duration_seconds{{{OF_EXPORTER}}}", "{{instance}}"),),
            "s",
            minimum=0,
        ),
        Panel(
            "Series in a scrape",
            (Query(f"scrape_samples_scraped{{{OF_EXPORTER}}}", "{{instance}}"),),
            "short",
            minimum=0,
        ),
        Panel(
            "Memory of the exporter",
            (Query(f"process_resident_memory_bytes{{{OF_EXPORTER}}}", "{{instance}}"),),
            "bytes",
            minimum=0,
        ),
        Panel(
            "Processor time of the exporter",
            (Query(f"rate(process_cpu_seconds_total{{{OF_EXPORTER}}}[$__rate_interval])", "{{instance}}"),),
            "percentunit",
            text="Share of one core.",
            minimum=0,
        ),
        Panel(
            "Problems and ignored GPUs of the detection",
            (
                Query(f"gpurig_detection_problems{{{ON_BOX}}}", "{{instance}} {{source}}", empty_is_good=True),
                Query(f"gpurig_detection_ignored_gpus{{{ON_BOX}}}", "{{instance}} ignored"),
            ),
            minimum=0,
            steps=True,
        ),
        Panel(
            "Versions of gpurig",
            (Query(f"max by (instance, version, python) (gpurig_build_info{{{ON_BOX}}})"),),
            kind="table",
            columns=(
                Column("instance", "Box"),
                Column("version", "gpurig"),
                Column("python", "Python"),
            ),
            sort_by="Box",
        ),
        Panel(
            "Drivers",
            (Query(f"max by (instance, backend, driver, library, cuda) (gpurig_driver_info{{{ON_BOX}}})"),),
            kind="table",
            width=24,
            height=6,
            columns=(
                Column("instance", "Box"),
                Column("backend", "Backend"),
                Column("driver", "Driver"),
                Column("library", "Library"),
                Column("cuda", "CUDA"),
            ),
            sort_by="Box",
        ),
    ),
)
