"""The whole slice on a real engine: up, up again, a graded eval in a pipeline, the note, the metrics, down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from gpurig.common.waiting import wait_for
from standins.images import image_bytes_with
from standins.journey import EXIT_CODES, OUT_OF_MEMORY, PIPELINE, UNSERVED, Journey, journey

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def box(
    engine: docker.DockerClient,
    base_image: str,
    standin_runner_image: str,
    bridge_address: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Journey]:
    """A box after `up`, a second `up` and a pipeline; the last test takes it down."""
    root = tmp_path_factory.mktemp("box")
    with journey(root, bridge_address, standin_runner_image, base_image) as made:
        try:
            made.up("dry-run", "--dry-run")
            made.look("dry-run", engine)
            made.up("first")
            made.look("first", engine)
            made.up("second")
            made.look("second", engine)
            if made.said["second"].code == 0:
                made.pipelines["eval"] = made.gitlab.create_pipeline(
                    made.project, PIPELINE, merge_request=made.merge_request
                )
                made.pipelines["unserved"] = made.gitlab.create_pipeline(made.project, UNSERVED)
                made.pipelines["exit codes"] = made.gitlab.create_pipeline(made.project, EXIT_CODES)
                made.pipelines["memory"] = made.gitlab.create_pipeline(made.project, OUT_OF_MEMORY)
                served = [job for name in ("eval", "exit codes", "memory") for job in made.pipelines[name].jobs]
                made.gitlab.wait_for_jobs(served, 300)
            made.gpurig("status", "status", "--root", str(root), "--name", made.name, "--json")
            words = ("--root", str(root), "--name", made.name, "--token-file", str(root / "token"))
            made.gpurig("doctor", "doctor", *words, "--json")
            yield made
        finally:
            for container in made.containers(engine).values():
                engine.containers.get(container).remove(force=True, v=True)


def test_a_dry_run_shows_the_plan_and_touches_nothing(box: Journey) -> None:
    said = box.said["dry-run"]
    assert said.code == 0, said.text
    assert "cpu" in said.stdout
    seen = box.seen["dry-run"]
    assert (seen.containers, list(seen.files), seen.runners) == ({}, ["token"], [])


def test_up_makes_the_box_a_runner_that_gitlab_calls_online(box: Journey) -> None:
    said = box.said["first"]
    assert said.code == 0, said.text
    [runner] = box.gitlab.runners
    assert set(runner.tag_list) == {"gpurig", "cpu"}
    assert runner.status == "online"
    assert f"#{runner.id}" in said.stdout
    assert max(len(line) for line in said.stdout.splitlines()) <= 200


def test_secrets_lie_only_in_files_that_nobody_else_may_read(box: Journey) -> None:
    files = box.seen["first"].files
    modes = {name: mode for name, (mode, _) in files.items() if name.startswith("etc/")}
    assert set(modes) == {f"etc/{box.name}/config.toml", f"etc/{box.name}/state.json"}
    assert set(modes.values()) == {0o600}
    hidden = [secret.encode() for secret in box.secrets]
    holders = {name for name, (_, content) in files.items() if any(secret in content for secret in hidden)}
    assert holders <= {*modes, "token"}


def test_a_second_up_changes_nothing_and_says_so(box: Journey) -> None:
    said = box.said["second"]
    assert said.code == 0, said.text
    assert "nothing to change" in said.stdout
    assert box.seen["second"] == box.seen["first"]


def test_four_jobs_evaluate_a_suite_with_artifacts_between_them(box: Journey) -> None:
    jobs = {job.name: job for job in box.pipelines["eval"].jobs}
    assert {name: job.status for name, job in jobs.items()} == dict.fromkeys(jobs, "success"), [
        job.log[-2000:] for job in jobs.values()
    ]
    assert sorted(jobs["report"].artifacts) == ["archive", "junit", "metrics"]
    assert "generate: 6/6" in jobs["generate"].log
    assert "grade: 6/6" in jobs["grade"].log


def test_gitlab_sees_why_a_job_failed_by_its_exit_code(box: Journey) -> None:
    jobs = {job.name: job for job in box.pipelines["exit codes"].jobs}
    assert {name: (job.failure_reason, job.exit_code) for name, job in jobs.items()} == {
        "gate": ("script_failure", 3),
        "input": ("script_failure", 2),
    }, [job.log[-1500:] for job in jobs.values()]


def test_the_note_is_on_the_merge_request_once(box: Journey) -> None:
    [note] = box.merge_request.notes
    assert "gpurig" in note.body
    assert "ci-jobs" in note.body


def test_a_job_whose_tags_no_runner_has_stays_pending(box: Journey) -> None:
    [job] = box.pipelines["unserved"].jobs
    assert job.status == "pending"


def test_status_tells_what_is_there(box: Journey, engine: docker.DockerClient) -> None:
    said = box.said["status"]
    assert said.code == 0, said.text
    told = json.loads(said.stdout)
    assert box.name in json.dumps(told)
    assert str(box.gitlab.runners[0].id) in said.stdout


def test_doctor_finds_nothing_wrong_with_a_box_that_works(box: Journey) -> None:
    said = box.said["doctor"]
    found = {one["name"]: one for one in json.loads(said.stdout)["checks"]}
    assert {name: one["message"] for name, one in found.items() if one["status"] == "failed"} == {}
    assert said.code == 0
    assert found["metrics port"]["message"] == "our exporter listens there"
    assert found["gitlab"]["found"] == box.gitlab.url
    assert found["token"]["status"] == found["runner tokens"]["status"] == found["runner image"]["status"] == "ok"


def test_the_exporter_serves_metrics_on_loopback(box: Journey) -> None:
    text = box.scrape()
    assert "gpurig_build_info" in text
    assert "gpurig_collector_success" in text


def test_the_watcher_tells_the_exporter_of_the_engine_the_runner_and_the_jobs(box: Journey) -> None:
    [generate] = [job for job in box.pipelines["eval"].jobs if job.name == "generate"]
    ended = f'gpurig_job_end_timestamp_seconds{{job_id="{generate.id}",project_id="{box.project.id}"'

    def scraped() -> str | None:
        text = box.scrape()
        # A job has ended when none of its containers has run for a while.
        return text if 'gpurig_collector_success{collector="engine"} 1' in text and ended in text else None

    text = wait_for(scraped, timeout_s=30) or box.scrape()
    failed = [line for line in text.splitlines() if "gpurig_collector_success" in line and line.endswith(" 0.0")]
    assert failed == []
    [runner] = box.gitlab.runners
    assert f'gpurig_runner_info{{runner_id="{runner.id}"' in text
    assert 'gpurig_images_bytes{kind="job"}' in text
    assert 'gpurig_disk_free_bytes{purpose="engine"}' in text
    assert ended in text


def test_a_job_that_ran_out_of_the_gpus_memory_is_said_to_have_and_one_that_passed_is_not(box: Journey) -> None:
    full, handled = sorted(box.pipelines["memory"].jobs, key=lambda job: job.name)
    assert (full.status, handled.status) == ("failed", "success")
    text = box.scrape()
    for job, count in ((full, 1), (handled, 0)):
        said = [
            line
            for line in text.splitlines()
            if line.startswith(f'gpurig_job_oom_total{{job_id="{job.id}"') and 'memory="gpu"' in line
        ]
        assert [float(line.rsplit(" ", 1)[1]) for line in said] == [count], said


def test_no_secret_shows_in_any_output_log_process_list_container_or_image(
    box: Journey, engine: docker.DockerClient
) -> None:
    hidden = [secret.encode() for secret in box.secrets]
    assert len(hidden) >= 3
    places: dict[str, bytes] = {f"output of {label}": said.text.encode() for label, said in box.said.items()}
    places |= {f"job log of {job.name}": job.log.encode() for run in box.pipelines.values() for job in run.jobs}
    for name, container_id in box.containers(engine).items():
        container = engine.containers.get(container_id)
        places[f"log of {name}"] = container.logs()
        places[f"inspect of {name}"] = json.dumps(container.attrs).encode()
    places |= {f"process {line[:60]!r}": line for line in box.watch.seen}
    images = {engine.containers.get(one).image.id for one in box.containers(engine).values()}
    images |= {image.id for image in engine.images.list("gpurig-job-cpu")}
    for image in images:
        places[f"inspect of image {image}"] = json.dumps(engine.images.get(image).attrs).encode()
        places[f"history of image {image}"] = json.dumps(engine.images.get(image).history()).encode()
    leaks = [where for where, content in places.items() for secret in hidden if secret in content]
    leaks += [f"layers of image {image}" for image in images if image_bytes_with(engine, image, hidden)]
    assert leaks == []
    # The watch saw the very processes that had the token: without them it would prove nothing.
    assert any(b"gpurig.runner" in line and b"--token-file" in line for line in box.watch.seen)


def test_down_leaves_no_runner_no_container_no_file_but_the_models(box: Journey, engine: docker.DockerClient) -> None:
    [models] = box.root.glob("var/lib/*/models")
    (models / "pulled.gguf").write_bytes(b"a model that took an hour to download")
    said = box.gpurig("down", "down", "--root", str(box.root), "--name", box.name, "--unregister")
    assert said.code == 0, said.text
    seen = box.look("down", engine)
    kept = str((models / "pulled.gguf").relative_to(box.root))
    assert (seen.containers, set(seen.files), seen.runners) == ({}, {"token", kept}, [])
    assert not (box.root / "etc" / box.name).exists()
    assert not box.metrics_data.exists()
    again = box.gpurig("down-again", "down", "--root", str(box.root), "--name", box.name, "--unregister")
    assert again.code in {0, 4}, again.text
