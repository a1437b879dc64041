"""The stand-in GitLab speaks the job protocol as gitlab-runner's client expects it (loopback only)."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
from gpurig.common import process
from standins import job_spec
from standins.calls import Api, HandRunner, zipped
from standins.gitlab import ConfigError, GitLab, Pipeline, trace_is_whole

_TWO_STAGES = """
stages: [make, use]
make:
  stage: make
  tags: [cpu]
  image: {name: "job:1", entrypoint: [""], pull_policy: if-not-present}
  script: [make]
  artifacts: {paths: [out/], expire_in: 1 week, reports: {junit: junit.xml, metrics: metrics.txt}}
use: {stage: use, tags: [cpu], script: [use], timeout: 1h 30m}
"""


@pytest.fixture
def pipeline(gitlab: GitLab) -> Pipeline:
    project = gitlab.add_project("team/app")
    gitlab.add_variable(project, "NOTE_TOKEN", "secret-value", masked=True)
    return gitlab.create_pipeline(project, _TWO_STAGES, merge_request=gitlab.add_merge_request(project))


@pytest.fixture
def runner(gitlab: GitLab, pipeline: Pipeline) -> HandRunner:
    return HandRunner.make(gitlab, pipeline.project.id, "cpu", "vram-8gb", run_untagged=False)


@pytest.mark.parametrize(
    ("tags", "run_untagged", "job_tags", "taken"),
    [
        (["cpu"], False, ["cpu"], True),
        (["cpu", "vram-8gb"], False, ["cpu"], True),
        (["cpu"], False, ["cpu", "vram-8gb"], False),
        (["cuda"], True, ["cpu"], False),
        (["cpu"], False, [], False),
        (["cpu"], True, [], True),
    ],
)
def test_a_job_goes_to_a_runner_that_has_all_its_tags(
    gitlab: GitLab, tags: list[str], run_untagged: bool, job_tags: list[str], taken: bool
) -> None:
    project = gitlab.add_project("team/app")
    runner = HandRunner.make(gitlab, project.id, *tags, run_untagged=run_untagged)
    job = gitlab.create_pipeline(project, f"build: {{tags: {job_tags}, script: [echo]}}").job("build")
    assert runner.request().status_code == (201 if taken else 204)
    assert job.status == ("running" if taken else "pending")


def test_a_paused_runner_a_foreign_one_and_an_unknown_token_get_no_job(
    gitlab: GitLab, pipeline: Pipeline, runner: HandRunner
) -> None:
    foreign = HandRunner.make(gitlab, gitlab.add_project("other/app").id, "cpu")
    assert foreign.request().status_code == 204
    assert HandRunner(runner.api, "glrt-unknown").request().status_code == 403
    gitlab.runners[0].paused = True
    assert runner.request().status_code == 204
    assert pipeline.job("make").status == "pending"


def test_the_queue_value_tells_a_runner_that_nothing_changed_until_a_job_waits(
    gitlab: GitLab, pipeline: Pipeline, runner: HandRunner
) -> None:
    runner.take()
    value = runner.request().headers["X-GitLab-Last-Update"]
    assert runner.request(value).status_code == 204
    gitlab.create_pipeline(pipeline.project, "later: {tags: [cpu], script: [echo]}")
    assert runner.request(value).status_code == 201


def test_the_answer_carries_what_gitlab_runner_reads(gitlab: GitLab, pipeline: Pipeline, runner: HandRunner) -> None:
    job = runner.take()
    variables = {item["key"]: item for item in job["variables"]}
    assert job["image"] == {
        "name": "job:1",
        "entrypoint": [""],
        "ports": [],
        "executor_opts": {},
        "pull_policy": ["if-not-present"],
    }
    assert [(item["artifact_type"], item["artifact_format"], item["when"]) for item in job["artifacts"]] == [
        ("archive", "zip", "on_success"),
        ("junit", "gzip", "always"),
        ("metrics", "gzip", "always"),
    ]
    assert job["git_info"]["sha"] == pipeline.sha
    assert variables["NOTE_TOKEN"] == {
        "key": "NOTE_TOKEN",
        "value": "secret-value",
        "public": False,
        "masked": True,
        "file": False,
        "raw": True,
    }
    assert (variables["CI_JOB_TOKEN"]["value"], variables["CI_JOB_TOKEN"]["masked"]) == (job["token"], True)
    assert variables["CI_MERGE_REQUEST_IID"]["value"] == "1"
    assert variables["CI_API_V4_URL"]["value"] == f"{gitlab.url}/api/v4"
    assert variables["CI_JOB_URL"]["value"] == f"{gitlab.url}/team/app/-/jobs/{job['id']}"


def test_every_field_of_a_job_has_the_type_that_gitlab_runner_decodes(runner: HandRunner) -> None:
    first = runner.take()
    runner.upload(first, zipped(out="1"))
    runner.update(first, "success")
    second = runner.take()
    assert second["dependencies"][0]["artifacts_file"]["size"] > 0
    assert job_spec.mismatches(first) + job_spec.mismatches(second) == []
    assert job_spec.mismatches({**first, "id": "1", "steps": {}}) == ["job.id is str", "job.steps is no list"]


def test_a_cancelled_job_tells_the_runner_so_at_its_next_call(
    gitlab: GitLab, pipeline: Pipeline, runner: HandRunner
) -> None:
    job = runner.take()
    gitlab.cancel(pipeline.job("make"))
    answer = runner.patch(job, b"late", 0)
    assert (answer.status_code, answer.headers["Job-Status"]) == (403, "canceled")
    assert (pipeline.job("use").status, pipeline.status) == ("skipped", "canceled")


def test_the_log_grows_by_ranges_and_a_wrong_range_is_answered_with_the_right_one(
    pipeline: Pipeline, runner: HandRunner
) -> None:
    job = runner.take()
    first = runner.patch(job, b"hello ", 0)
    assert (first.status_code, first.headers["Range"], first.headers["Job-Status"]) == (202, "0-6", "running")
    assert int(first.headers["X-GitLab-Trace-Update-Interval"]) > 0
    gap = runner.patch(job, b"!", 9)
    assert (gap.status_code, gap.headers["Range"]) == (416, "0-6")
    # The answer to a part was lost and it comes again: taken as the same, not twice.
    assert runner.patch(job, b"hello ", 0).status_code == 202
    assert runner.patch(job, b"hello world", 0).status_code == 416
    assert runner.patch(job, b"world", 6).status_code == 202
    assert runner.update(job, "success", b"hello world").status_code == 200
    made = pipeline.job("make")
    assert (made.log, made.status, trace_is_whole(made)) == ("hello world", "success", True)
    after = runner.patch(job, b"more", 11)
    assert (after.status_code, after.headers["Job-Status"]) == (403, "success")


def test_a_log_that_is_not_what_the_runner_counted_is_not_whole(pipeline: Pipeline, runner: HandRunner) -> None:
    job = runner.take()
    runner.patch(job, b"hello", 0)
    runner.update(job, "success", b"hallo")
    assert not trace_is_whole(pipeline.job("make"))


def test_a_patch_without_its_range_or_with_another_jobs_token_is_refused(
    gitlab: GitLab, pipeline: Pipeline, runner: HandRunner
) -> None:
    job = runner.take()
    gitlab.create_pipeline(pipeline.project, "other: {tags: [cpu], script: [echo]}")
    other = runner.take()
    assert runner.patch({**job, "token": other["token"]}, b"x", 0).status_code == 403
    headers = {"JOB-TOKEN": job["token"]}
    assert runner.api.call("PATCH", f"jobs/{job['id']}/trace", data=b"x", headers=headers).status_code == 400
    assert pipeline.job("make").log == ""


def test_a_failed_job_keeps_its_reason_and_code_and_what_needs_it_is_skipped(
    pipeline: Pipeline, runner: HandRunner
) -> None:
    job = runner.take()
    runner.update(job, "failed", failure_reason="script_failure", exit_code=3)
    made = pipeline.job("make")
    assert (made.status, made.failure_reason, made.exit_code) == ("failed", "script_failure", 3)
    assert (pipeline.job("use").status, pipeline.status) == ("skipped", "failed")
    assert runner.request().status_code == 204


def test_artifacts_flow_to_the_next_job_and_to_nobody_without_a_running_jobs_token(
    gitlab: GitLab, pipeline: Pipeline, runner: HandRunner
) -> None:
    content = zipped(**{"out/data.txt": "42"})
    first = runner.take()
    assert first["dependencies"] == []
    assert runner.upload(first, content, artifact_format="zip", artifact_type="archive").status_code == 201
    assert runner.upload(first, content, artifact_format="zip", artifact_type="archive").status_code == 201
    assert runner.upload(first, zipped(other="1"), artifact_format="zip", artifact_type="archive").status_code == 400
    assert runner.upload(first, b"no zip", artifact_format="gzip", artifact_type="junit").status_code == 400
    runner.update(first, "success")
    second = runner.take()
    assert second["dependencies"] == [
        {
            "id": first["id"],
            "name": "make",
            "token": second["token"],
            "artifacts_file": {"filename": "artifacts.zip", "size": len(content)},
        }
    ]
    assert second["runner_info"]["timeout"] == 5400
    assert runner.download(first["id"], second["token"]).content == content
    assert runner.download(second["id"], second["token"]).status_code == 404
    assert runner.download(first["id"], "glcbt-unknown").status_code == 403
    assert runner.upload(first, content).status_code == 403
    runner.update(second, "success")
    assert pipeline.status == "success"
    assert pipeline.job("make").artifacts["archive"].content == content


def test_needs_start_a_job_before_its_stage_and_give_it_those_artifacts_only(gitlab: GitLab) -> None:
    text = """
    a: {stage: build, script: [echo], artifacts: {paths: [a]}}
    b: {stage: build, script: [echo], artifacts: {paths: [b]}}
    c: {stage: test, needs: [a], script: [echo]}
    d: {stage: test, needs: [a, {job: b, artifacts: false}], script: [echo], when: always}
    e: {stage: deploy, dependencies: [], script: [echo]}
    """
    project = gitlab.add_project("team/app")
    runner = HandRunner.make(gitlab, project.id, "cpu", run_untagged=True)
    pipeline = gitlab.create_pipeline(project, text)
    a, b = runner.take(), runner.take()
    assert (a["job_info"]["name"], b["job_info"]["name"]) == ("a", "b")
    runner.upload(a, zipped(a="1"))
    runner.update(a, "success")
    assert [job.status for job in pipeline.jobs] == ["success", "running", "pending", "created", "created"]
    c = runner.take()
    assert [item["name"] for item in c["dependencies"]] == ["a"]
    runner.update(c, "success")
    runner.update(b, "failed", failure_reason="script_failure")
    d = runner.take()
    assert [item["name"] for item in d["dependencies"]] == ["a"]
    assert pipeline.job("e").status == "created"
    runner.update(d, "success")
    assert (pipeline.job("e").status, pipeline.status) == ("skipped", "failed")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "Invalid configuration format"),
        ("stages: [a]", "at least one visible job"),
        ("a: {stage: nowhere, script: [echo]}", "chosen stage nowhere does not exist"),
        ("a: {tags: cpu, script: [echo]}", "a/tags"),
        ("a: {script: [echo], needs: [b]}", "undefined need: b"),
        ("a: {script: [echo], cache: {paths: [x]}}", "unknown keys: cache"),
    ],
)
def test_a_configuration_that_is_wrong_or_beyond_the_stand_in_is_refused(gitlab: GitLab, text: str, said: str) -> None:
    project = gitlab.add_project("team/app")
    with pytest.raises(ConfigError, match=said):
        gitlab.create_pipeline(project, text)
    answer = Api.person(gitlab, "api").call("POST", f"projects/{project.id}/ci/lint", json={"content": text})
    assert (answer.status_code, answer.json()["valid"]) == (200, False)


def test_a_running_jobs_token_clones_its_project_and_no_other_token_does(
    gitlab: GitLab, pipeline: Pipeline, runner: HandRunner, tmp_path: Path
) -> None:
    job = runner.take()
    address = job["git_info"]["repo_url"]

    def clone(url: str, name: str) -> process.Finished:
        return process.run(
            ["git", "-c", "credential.helper=", "clone", "--quiet", url, name],
            timeout_s=60,
            cwd=tmp_path,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(tmp_path),
                "GIT_TERMINAL_PROMPT": "0",
                "GIT_CONFIG_NOSYSTEM": "1",
            },
        )

    assert clone(address, "mine").code == 0
    assert (tmp_path / "mine" / "README.md").read_text(encoding="utf-8") == "# team/app\n"
    gitlab.add_project("other/app")
    assert clone(address.replace("team/app", "other/app"), "foreign").code != 0
    assert clone(f"{gitlab.url}/team/app.git", "anonymous").code != 0
    runner.update(job, "success")
    assert clone(address, "late").code != 0


def test_a_job_token_reads_the_merge_requests_notes_and_writes_none(
    gitlab: GitLab, pipeline: Pipeline, runner: HandRunner
) -> None:
    job = runner.take()
    notes = f"projects/{pipeline.project.id}/merge_requests/1/notes"
    bot = Api.person(gitlab, "api")
    made = bot.call("POST", notes, json={"body": "first"}).json()
    by_job = Api(gitlab, {"JOB-TOKEN": job["token"]})
    assert [item["body"] for item in by_job.call("GET", notes).json()] == ["first"]
    assert by_job.call("POST", notes, json={"body": "second"}).status_code == 401
    assert by_job.call("PUT", f"{notes}/{made['id']}", json={"body": "changed"}).status_code == 401
    assert Api.person(gitlab, "read_api").call("POST", notes, json={"body": "second"}).status_code == 403
    assert bot.call("PUT", f"{notes}/{made['id']}", json={"body": "changed"}).json()["body"] == "changed"
    for number in range(24):
        bot.call("POST", notes, json={"body": f"note {number}"})
    second = bot.call("GET", notes, params={"page": 2, "per_page": 10, "sort": "asc"})
    assert [item["body"] for item in second.json()] == [f"note {number}" for number in range(9, 19)]
    assert (second.headers["X-Total"], second.headers["X-Next-Page"]) == ("25", "3")
    assert requests.get(second.links["next"]["url"], headers=bot.headers, timeout=10).json()[-1]["body"] == "note 23"
    assert bot.call("DELETE", f"{notes}/{made['id']}").status_code == 204
    assert len(pipeline.project.merge_requests[1].notes) == 24
