"""What the box's exporter tells of the pipeline's jobs, in every report; and files that tell nothing good."""

from __future__ import annotations

import json
import os
from xml.etree import ElementTree as ET

import pytest
from gpurig.evaljobs.gpu_use import find_gpu_use
from gpurig.evaljobs.report import html_report, junit_xml, metrics_text, note_markdown, terminal_summary
from gpurig.evaljobs.results import GpuCardUse, JobGpuUse, JobRef, Results
from gpurig.runner.exporter.jobs.summary import UsageFolder
from hypothesis import given
from hypothesis import strategies as st
from standins.accounting import EPOCH, key
from standins.evalrun import HOSTILE, results
from standins.gpu_use import CARD, GPUS, TWIN, job_use, used

CI = {"CI_PROJECT_ID": "1", "CI_PIPELINE_ID": "1", "CI_JOB_ID": "7"}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "usage"


@pytest.fixture
def find(folder):
    warnings: list[str] = []

    def run(environ=CI):
        found = find_gpu_use(folder, environ, warnings.append)
        return found, warnings

    return run


def write(folder, *jobs):
    UsageFolder(folder).write(jobs, GPUS, 0.0, EPOCH)


def test_what_the_exporter_writes_is_what_the_report_reads(folder, find):
    write(folder, job_use(used(), exit_code=1, oom={"gpu": 1}))
    (job,), warnings = find()
    assert warnings == []
    assert job == JobGpuUse(
        job_id="7",
        pipeline_id="1",
        ended="2023-11-14T22:21:40Z",
        exit_code=1,
        gpus=(
            GpuCardUse(
                name="NVIDIA GeForce RTX 4090",
                memory_total_bytes=24564 * 1024**2,
                memory_peak_bytes=int(5.3 * 1024**3),
                gpu_seconds=412.4,
                energy_joules=38210,
            ),
        ),
        oom=("gpu",),
        text="GPU: RTX 4090, peak 5.3 of 24.0 GiB, 412 GPU-seconds, 38 kJ. The job ran out of GPU memory",
    )


def test_only_jobs_of_this_pipeline_of_this_project_are_taken_in_their_order(folder, find):
    write(
        folder,
        *(job_use(used(), key=key(number)) for number in (10, 9, 100)),
        job_use(used(), key=key(11, pipeline=2)),
        job_use(used(), key=key(12, project=2)),
    )
    found, warnings = find()
    assert [one.job_id for one in found] == ["9", "10", "100"]
    assert warnings == []


@pytest.mark.parametrize(
    "environ", [{}, {"CI_PROJECT_ID": "1"}, {**CI, "CI_PROJECT_ID": "../1"}, {**CI, "CI_PIPELINE_ID": "x"}]
)
def test_outside_of_a_pipeline_nothing_is_looked_for(folder, find, environ):
    write(folder, job_use(used()))
    assert find(environ) == ((), [])


def test_a_box_without_an_exporter_shows_nothing_and_says_nothing(find, folder):
    assert find() == ((), [])
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file")
    assert find() == ((), [])


def good(**changes):
    fields = {"schema": "gpurig.gpu-use/1", "job_id": "8", "project_id": "1", "pipeline_id": "1"}
    return json.dumps(fields | changes).encode()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "EOF"),
        (b"\xff\xfe", "8.json is passed over"),
        (b"[" * 60_000, "recursion limit"),
        (b" " * 70_000, "larger than 64 KiB"),
        (good(schema="gpurig.gpu-use/2"), "schema"),
        (good(job_id="9"), "another job"),
        (good(project_id="2"), "another job"),
        (good(job_id="8\n/merge"), "job_id"),
        (good(gpus=[{"gpu_seconds": -1}]), "gpus.0.gpu_seconds"),
        (good(gpus=[{"gpu_seconds": "1e999"}]), "gpus.0.gpu_seconds"),
        (good(gpus=[{}] * 65), "gpus"),
        (good(gpus=[{"name": "x" * 201}]), "gpus.0.name"),
        (good(text="x" * 2001), "text"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_warning_and_the_others_count(folder, find, content, why):
    write(folder, job_use(used()))
    (folder / "1" / "8.json").write_bytes(content)
    found, (warning,) = find()
    assert [one.job_id for one in found] == ["7"]
    assert why in warning


def test_links_pipes_and_folders_are_passed_over_without_waiting(folder, find, tmp_path):
    write(folder, job_use(used()))
    secret = tmp_path / "secret"
    secret.write_bytes(good(job_id="20"))
    (folder / "1" / "20.json").symlink_to(secret)
    os.mkfifo(folder / "1" / "21.json")
    (folder / "1" / "22.json").mkdir()
    found, warnings = find()
    assert [one.job_id for one in found] == ["7"]
    assert len(warnings) == 3


def test_many_bad_files_are_few_warnings(folder, find):
    write(folder, job_use(used()))
    for number in range(100, 150):
        (folder / "1" / f"{number}.json").write_text("{")
    found, warnings = find()
    assert len(found) == 1
    assert len(warnings) == 4
    assert warnings[-1] == "47 more files of GPU use are passed over"


def told(*uses, job_id="7", **more) -> JobGpuUse:
    cards = tuple(
        GpuCardUse(
            name=name,
            memory_total_bytes=24564 * 1024**2,
            memory_peak_bytes=int(peak * 1024**3),
            gpu_seconds=seconds,
            energy_joules=joules,
        )
        for name, peak, seconds, joules in uses
    )
    return JobGpuUse(job_id=job_id, pipeline_id="1", gpus=cards, **{"ended": "2023-11-14T22:21:40Z"} | more)


MINE = told((CARD.name, 5.3, 412.4, 38_210.0), ended=None, text="GPU: RTX 4090, peak 5.3 of 24.0 GiB")
BEFORE = told((TWIN.name, 20.0, 1000.0, 250_000.0), job_id="6")
JOB = JobRef(id="7", url="https://gitlab.example.com/g/p/-/jobs/7")


def reported(*uses: JobGpuUse, job=JOB) -> Results:
    return results(gpu_use=uses, job=job)


def test_the_note_has_a_row_for_each_job_and_gpu_with_the_jobs_page():
    note = note_markdown(reported(BEFORE, MINE))
    assert (
        "| Job | GPU | Peak memory | GPU-seconds | Energy |\n|:--|:--|--:|--:|--:|\n"
        "| [6](https://gitlab.example.com/g/p/-/jobs/6) | NVIDIA GeForce RTX 4090 | 20.0 of 24.0 GiB | 1,000 "
        "| 250 kJ |\n"
        "| [7](https://gitlab.example.com/g/p/-/jobs/7) (this job) | NVIDIA GeForce RTX 4090 | 5.3 of 24.0 GiB | 412 "
        "| 38 kJ |\n"
    ) in note


def test_the_note_says_which_job_died_for_want_of_memory():
    note = note_markdown(reported(told(job_id="5", oom=("gpu",)), told(job_id="6", oom=("host", "disk"))))
    assert ":warning: Job 5 ran out of GPU memory.\n\n:warning: Job 6 ran out of main memory.\n" in note


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_name_stays_in_its_cell(hostile):
    note = note_markdown(reported(told((hostile[:200], 1, 1, 1))))
    (row,) = [line for line in note.split("\n") if line.startswith("| [7]")]
    assert row.count("|") == 6
    assert "@" not in row
    assert "<" not in row
    page = html_report(reported(told((hostile[:200], 1, 1, 1))))
    assert page.count("<script>") == 1
    assert "<img" not in page


def test_a_job_address_that_is_none_makes_no_link():
    assert "| 7 (this job) |" in note_markdown(reported(MINE, job=JobRef(id="7", url="javascript:alert(1)")))


def test_without_any_use_no_report_changes():
    without = results(job=JOB)
    assert "Peak" not in note_markdown(without)
    assert "gpu_" not in metrics_text(without)
    assert "propert" not in junit_xml(without)
    assert "GPU use" not in html_report(without)
    assert "GPU:" not in terminal_summary(without, "report")


def metrics(run: Results) -> dict[str, str]:
    return {line.split("{")[0]: line.split()[-1] for line in metrics_text(run).splitlines() if line.startswith("gpu_")}


def test_the_metrics_are_this_jobs_rounded_to_two_digits():
    assert metrics(reported(BEFORE, MINE)) == {
        "gpu_memory_peak_gib": "5.3",
        "gpu_seconds": "410",
        "gpu_energy_kilojoules": "38",
    }


def test_the_metrics_of_a_job_that_used_no_gpu_are_the_pipelines():
    assert metrics(reported(BEFORE, told((CARD.name, 5.3, 412.4, 38_210.0), job_id="5"), told())) == {
        "gpu_memory_peak_gib": "20",
        "gpu_seconds": "1400",
        "gpu_energy_kilojoules": "290",
    }


def test_junit_has_the_figures_as_properties_of_its_suite():
    suite = ET.fromstring(junit_xml(reported(BEFORE, MINE)).encode()).find("testsuite")  # noqa: S314 - our own
    assert {one.get("name"): one.get("value") for one in suite.iterfind("properties/property")} == {
        "gpu_memory_peak_bytes": str(int(5.3 * 1024**3)),
        "gpu_seconds": "412",
        "gpu_energy_joules": "38210",
    }


def test_what_no_card_tells_is_no_metric():
    use = JobGpuUse(job_id="7", gpus=(GpuCardUse(name="GB10", memory_peak_bytes=2.0**33),))
    assert metrics(reported(use)) == {"gpu_memory_peak_gib": "8"}


def test_the_page_shows_cards_and_a_table():
    page = html_report(reported(BEFORE, MINE))
    assert '<h2 id="gpu-use">GPU use</h2>' in page
    assert "5.3 GiB" in page
    assert "20.0 of 24.0 GiB" in page
    assert "this job</span>" in page


def test_the_summary_in_the_log_has_the_line_in_80_columns():
    text = terminal_summary(reported(MINE), "report")
    assert "GPU: RTX 4090, peak 5.3 of 24.0 GiB\n" in text
    assert max(map(len, text.splitlines())) <= 80


def test_results_json_keeps_the_use_and_a_file_without_it_is_read():
    run = reported(BEFORE, MINE)
    assert Results.model_validate_json(run.to_json()) == run
    old = json.loads(run.to_json())
    del old["gpu_use"]
    assert Results.model_validate(old).gpu_use == ()


def test_a_pipeline_of_many_jobs_shows_the_last_and_says_so():
    many = [told((CARD.name, 1, 1, 1), job_id=str(number)) for number in range(100, 150)]
    note = note_markdown(reported(*many))
    assert note.count("RTX 4090") == 20
    assert "30 earlier jobs are left out." in note
    assert "30 earlier jobs are left out." in html_report(reported(*many))


@given(st.floats(0, 1e15), st.floats(0, 1e15), st.floats(0, 1e15))
def test_any_figures_stay_one_line_of_two_words(peak, seconds, joules):
    card = GpuCardUse(memory_peak_bytes=peak, gpu_seconds=seconds, energy_joules=joules)
    for line in metrics_text(reported(JobGpuUse(job_id="7", gpus=(card,)))).splitlines():
        name, value = line.split()
        assert name
        assert float(value) >= 0
        assert "e" not in value
