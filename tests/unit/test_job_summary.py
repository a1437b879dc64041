"""The file and the line that tell a job what it used."""

from __future__ import annotations

import json
import os
import stat

import pytest
from gpurig.common.errors import PrerequisiteError
from gpurig.runner.exporter.jobs.model import JobKey, JobUse
from gpurig.runner.exporter.jobs.summary import KEEP_S, UsageFolder, summary_text
from standins.accounting import BOOT, EPOCH, GIB, Box, gpu, key
from standins.gpu_use import GPUS, job_use, used


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (job_use(used()), "GPU: RTX 4090, peak 5.3 of 24.0 GiB, 412 GPU-seconds, 38 kJ"),
        (
            job_use(used(peak=23.9), oom={"gpu": 1}),
            "GPU: RTX 4090, peak 23.9 of 24.0 GiB, 412 GPU-seconds, 38 kJ. The job ran out of GPU memory",
        ),
        (
            job_use(oom={"host": 1}),
            "GPU: not used. The job ran out of main memory, and the kernel ended it",
        ),
        (
            job_use(used(), used("gpu-c", peak=20.0)),
            "GPU: 2 x RTX 4090, peak 20.0 of 24.0 GiB, 825 GPU-seconds, 76 kJ",
        ),
        (
            job_use(used(), used("gpu-b", peak=1.25, seconds=1, joules=10)),
            "GPU: RTX 4090, peak 5.3 of 24.0 GiB; RX 7900 XTX, peak 1.2 of 24.0 GiB; 413 GPU-seconds, 38 kJ",
        ),
        (job_use(used(seconds=None)), "GPU: RTX 4090, peak 5.3 of 24.0 GiB, 38 kJ"),
        (job_use(used(peak=None, seconds=2.0, joules=None)), "GPU: RTX 4090, 2.0 GPU-seconds"),
        (job_use(used("gone")), "GPU: unknown GPU, peak 5.3 GiB, 412 GPU-seconds, 38 kJ"),
        (job_use(), "GPU: not used"),
    ],
)
def test_the_line_says_what_is_known_and_why_the_job_died(told, text):
    assert summary_text(told, GPUS) == text


def read(folder, project=1, number=7):
    return json.loads((folder / str(project) / f"{number}.json").read_text())


def test_the_file_holds_the_figures_and_the_line(tmp_path):
    UsageFolder(tmp_path).write([job_use(used(), exit_code=1, oom={"gpu": 1})], GPUS, BOOT, EPOCH + 501)
    assert read(tmp_path) == {
        "schema": "gpurig.gpu-use/1",
        "written": "2023-11-14T22:21:41Z",
        "job_id": "7",
        "project_id": "1",
        "pipeline_id": "1",
        "runner": "abc123",
        "started": "2023-11-14T22:13:20Z",
        "ended": "2023-11-14T22:21:40Z",
        "exit_code": 1,
        "gpus": [
            {
                "uuid": "gpu-a",
                "name": "NVIDIA GeForce RTX 4090",
                "memory_total_bytes": 24564 * 1024**2,
                "memory_peak_bytes": int(5.3 * GIB),
                "gpu_seconds": 412.4,
                "energy_joules": 38210.0,
            }
        ],
        "oom": ["gpu"],
        "text": "GPU: RTX 4090, peak 5.3 of 24.0 GiB, 412 GPU-seconds, 38 kJ. The job ran out of GPU memory",
    }
    assert stat.S_IMODE((tmp_path / "1" / "7.json").stat().st_mode) == 0o644


def test_a_running_jobs_file_is_refreshed_every_few_seconds_and_final_at_its_end(tmp_path):
    box = Box(usage=UsageFolder(tmp_path), gpus=lambda: GPUS)
    box.pids[100] = box.start(1, key(7))
    written = set()
    for _ in range(60):
        box.run(1, {"gpu-a": gpu((100, 3))})
        written.add((tmp_path / "1" / "7.json").stat().st_mtime_ns)
    assert len(written) == 12
    assert read(tmp_path)["gpus"][0]["gpu_seconds"] == pytest.approx(55, abs=5)
    assert read(tmp_path)["ended"] is None
    box.end(1, exit_code=0)
    box.run(15, {"gpu-a": gpu()})
    final = read(tmp_path)
    assert (final["ended"], final["exit_code"]) == ("2023-11-14T22:14:20Z", 0)
    assert final["gpus"][0]["gpu_seconds"] == pytest.approx(59)
    stamp = (tmp_path / "1" / "7.json").stat().st_mtime_ns
    for _ in range(20):
        box.run(1, {"gpu-a": gpu()})
    assert (tmp_path / "1" / "7.json").stat().st_mtime_ns == stamp, "written once when it is final"


@pytest.mark.parametrize("name", ["../../etc/passwd", "7/../8", "", "7\n", "\u0667", "9" * 21, "7.json"])
def test_a_label_that_is_no_number_names_no_file(tmp_path, name):
    folder = tmp_path / "usage"
    jobs = [
        JobUse(JobKey(name, "1", "1", "x"), (used(),), started_at=EPOCH),
        JobUse(JobKey("1", name, "1", "x"), (used(),), started_at=EPOCH),
    ]
    UsageFolder(folder).write(jobs, GPUS, BOOT, EPOCH)
    assert [*tmp_path.rglob("*")] == []


@pytest.mark.parametrize("moment", [-1.0, 1e300])
def test_a_clock_that_is_beyond_every_date_stops_nothing(tmp_path, moment):
    UsageFolder(tmp_path).write([job_use(used(), started_at=moment)], GPUS, BOOT, EPOCH)
    assert read(tmp_path)["started"] in {"1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z"}


def test_files_go_after_a_week_and_nothing_else_does(tmp_path):
    folder = UsageFolder(tmp_path)
    folder.write([job_use(used()), job_use(used(), key=key(8))], GPUS, BOOT, EPOCH)
    strange = tmp_path / "1" / "notes.txt"
    strange.write_text("mine")
    elsewhere = tmp_path / "letters"
    elsewhere.mkdir()
    (elsewhere / "9.json").write_text("mine")
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / ".9.json.abc.tmp").write_text("left over")
    link = tmp_path / "3"
    link.symlink_to(elsewhere)
    for path in (tmp_path / "1" / "7.json", strange, elsewhere / "9.json", tmp_path / "2" / ".9.json.abc.tmp"):
        os.utime(path, (EPOCH, EPOCH))
    os.utime(tmp_path / "1" / "8.json", (EPOCH + 100, EPOCH + 100))
    folder.prune(BOOT, EPOCH + KEEP_S + 50)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {
        "1", "1/8.json", "1/notes.txt", "letters", "letters/9.json", "3",
    }  # fmt: skip


def test_one_file_that_cannot_be_written_costs_no_other(tmp_path):
    (tmp_path / "2").write_text("a file where the project's folder should be")
    other = JobUse(key(9, project=2), (used(),), started_at=EPOCH)
    folder = UsageFolder(tmp_path)
    with pytest.raises(PrerequisiteError):
        folder.write([other, job_use(used())], GPUS, BOOT, EPOCH)
    assert read(tmp_path)["job_id"] == "7"
    (tmp_path / "2").unlink()
    folder.write([other, job_use(used())], GPUS, BOOT + 1, EPOCH + 1)
    assert read(tmp_path, project=2, number=9)["job_id"] == "9"
