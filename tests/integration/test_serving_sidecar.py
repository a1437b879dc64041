"""`gpurig-job serve` as a service of a GitLab job: the configuration of docs/serving.md, on a real engine."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from standins.gitlab import GitLab
from standins.running import config_toml, register, running
from standins.serving import write_served

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.docker
DOCS = Path(__file__).parents[2] / "docs/serving.md"
KEY = "a-key-of-a-masked-variable"
# Tells what came of each request as one line of JSON: the status, and the answer or the error's text.
CLIENT = """
import json, os, urllib.error, urllib.request
url, key = os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"]
def ask(name, path, body=None, key=key):
    headers = {"Content-Type": "application/json", "Authorization": "Bearer " + key}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data, headers), timeout=60) as answer:
            status, said = answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        status, said = error.code, json.load(error)["error"]["message"]
    print("ANSWER " + json.dumps([name, status, said]), flush=True)
chat = {"model": "judge", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
ask("models", "/models")
ask("answer", "/chat/completions", chat)
ask("no key", "/models", key="")
ask("wrong key", "/chat/completions", chat, key="another-key-of-somebody")
ask("long answer", "/chat/completions", {**chat, "max_tokens": 33})
ask("long prompt", "/chat/completions", {**chat, "messages": [{"role": "user", "content": "hello " * 90}]})
ask("large body", "/chat/completions", {**chat, "user": "x" * 20000})
ask("many at once", "/chat/completions", {**chat, "n": 5})
"""
LIMITS = ["--max-tokens", "32", "--max-prompt-tokens", "64", "--max-body", "10000", "--max-waiting", "4"]


def documented_job() -> dict[str, Any]:
    """The job of docs/serving.md that has a service."""
    blocks = [textwrap.dedent(block) for block in DOCS.read_text().split("\n\n") if block.startswith("    ")]
    (text,) = (block for block in blocks if "\n  services:" in block)
    (job,) = yaml.safe_load(text).values()
    return dict(job)


@dataclass(frozen=True)
class Box:
    """What a job with a service runs on."""

    engine: docker.DockerClient
    image: str
    job_image: str
    runner_image: str
    server: GitLab
    folder: Path

    def run(self, job: Any) -> str:
        """The log of the job, which succeeded, in a project with the documented variables."""
        project = self.server.add_project("team/app")
        self.server.add_variable(project, "EVAL_KEY", KEY, masked=True)
        self.server.add_variable(project, "EVAL_IMAGE", self.job_image)
        models = self.folder / "models"
        models.mkdir()
        write_served(models / "tiny.gguf").chmod(0o644)
        keys = {"image": self.image, "pull_policy": "if-not-present", "volumes": [f"{models}:/models:ro", "/cache"]}
        text = config_toml(self.server, {"one": register(self.server, project, tags=["cpu"])}, keys)
        with running(self.engine, self.runner_image, self.folder / "runner", text):
            made = self.server.create_pipeline(project, json.dumps({"eval": job})).job("eval")
            self.server.wait_for_jobs([made], 180)
        assert made.status == "success", made.log
        return str(made.log)


@pytest.fixture
def box(  # noqa: PLR0917 - fixtures
    engine: docker.DockerClient,
    base_image: str,
    job_image: str,
    standin_runner_image: str,
    reachable_gitlab: GitLab,
    tmp_path: Path,
) -> Box:
    return Box(engine, base_image, job_image, standin_runner_image, reachable_gitlab, tmp_path)


def test_the_documented_service_answers_its_job_and_holds_to_key_and_limits(box: Box) -> None:
    job = documented_job()
    (service,) = job["services"]
    program, word, _, *rest = service["command"]
    service["command"] = [program, word, "/models/tiny.gguf", *rest, *LIMITS]
    told, _ = job["script"]
    job |= {"image": box.image, "script": [told, f"python3 -c '{CLIENT}'"]}
    log = box.run(job)
    answers = {}
    for line in log.splitlines():
        if line.startswith("ANSWER "):
            name, *answer = json.loads(line.removeprefix("ANSWER "))
            answers[name] = answer
    assert "probably didn't start" not in log
    assert KEY not in log
    status, models = answers.pop("models")
    assert (status, models["data"][0]["id"]) == (200, "judge")
    status, answer = answers.pop("answer")
    assert (status, answer["usage"]["completion_tokens"]) == (200, 8)
    assert {name: status for name, (status, _) in answers.items()} == {
        "no key": 401,
        "wrong key": 401,
        "long answer": 400,
        "long prompt": 400,
        "large body": 413,
        "many at once": 400,
    }
    assert "32" in answers["long answer"][1]


def test_a_service_without_a_key_says_in_the_jobs_log_why_it_did_not_start(box: Box) -> None:
    job = documented_job()
    del job["services"][0]["variables"]["GPURIG_SERVE_API_KEY"]
    log = box.run({**job, "image": box.image, "script": ["echo went on"]})
    assert "probably didn't start properly" in log
    assert "GPURIG_SERVE_API_KEY" in log
    assert "went on" in log
