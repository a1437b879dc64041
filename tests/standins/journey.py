"""A box's whole life against the stand-in GitLab on a real engine, recorded for the tests that judge it."""

from __future__ import annotations

import os
import secrets
import socket
import stat
import subprocess  # noqa: TID251 - the command is watched while it runs
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import yaml
from gpurig.provisioning.paths import Paths

from standins.gitlab import GitLab, MergeRequest, Pipeline, Project

if TYPE_CHECKING:
    import docker

REPOSITORY = Path(__file__).resolve().parents[2]

PIPELINE = """
stages: [generate, check, grade, report]
default:
  tags: [cpu]
generate:
  stage: generate
  script: [gpurig-job generate ci-jobs --out report --limit 6]
  artifacts: {paths: [report/]}
check:
  stage: check
  script: [gpurig-job check ci-jobs --out report --limit 6]
  artifacts: {paths: [report/]}
grade:
  stage: grade
  script: [gpurig-job grade ci-jobs --out report --limit 6]
  artifacts: {paths: [report/]}
report:
  stage: report
  script: [gpurig-job report ci-jobs --out report --limit 6]
  artifacts:
    when: always
    paths: [report/]
    reports: {junit: report/junit.xml, metrics: report/metrics.txt}
"""
EXIT_CODES = """
default: {tags: [cpu]}
gate:
  script: [gpurig-job eval ci-jobs/strict.yaml --out report --limit 2]
input:
  script: [gpurig-job validate ci-jobs/none.yaml]
"""
# What PyTorch says where the GPU is full; after_script runs and the runner removes the container.
OUT_OF_MEMORY = """
default: {tags: [cpu]}
full:
  script: ["echo 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.' >&2; exit 1"]
  after_script: [echo cleaning up]
handled:
  script: ["echo 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.' >&2"]
"""
UNSERVED = "train: {tags: [cuda, vram-24gb], script: [echo never]}"


@dataclass(frozen=True)
class Said:
    """A finished `gpurig` command."""

    code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """Everything it printed."""
        return self.stdout + self.stderr


@dataclass(frozen=True)
class Snapshot:
    """What is there at one moment.

    Attributes:
        containers: the ids of the instance's containers, by name.
        files: mode and content of every file below the root, by relative path; what the runner's process, the watcher
            and the exporter write is left out.
        runners: ids of the runners in GitLab.
    """

    containers: dict[str, str]
    files: dict[str, tuple[int, bytes]]
    runners: list[int]


class ProcessWatch:
    """Collects the command line of every process that exists while it runs, as `ps` shows it to every user."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="process-watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        # The wait is the sampling period; nothing is assumed to have happened after it.
        while not self._stop.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes())
                except OSError:
                    continue


@dataclass
class Journey:
    """One box with its GitLab, its commands and what was seen on the way."""

    gitlab: GitLab
    project: Project
    merge_request: MergeRequest
    root: Path
    name: str
    token: str
    note_token: str
    options: list[str]
    metrics_port: int
    watch: ProcessWatch
    said: dict[str, Said] = field(default_factory=dict)
    seen: dict[str, Snapshot] = field(default_factory=dict)
    pipelines: dict[str, Pipeline] = field(default_factory=dict)

    def gpurig(self, label: str, *words: str) -> Said:
        """Run `gpurig` as a user does, and keep what it said under `label`."""
        done = subprocess.run(
            [sys.executable, "-m", "gpurig.runner", *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=900,
            env={**os.environ, "COLUMNS": "80"},
            cwd=self.root,
        )
        self.said[label] = Said(done.returncode, done.stdout, done.stderr)
        return self.said[label]

    def up(self, label: str, *more: str) -> Said:
        """`gpurig up` with this box's options."""
        return self.gpurig(label, "up", "--root", str(self.root), *self.options, *more)

    def containers(self, engine: docker.DockerClient) -> dict[str, str]:
        """The ids of the instance's containers, by name."""
        found = engine.containers.list(all=True, filters={"label": f"gpurig.instance={self.name}"})
        return {str(container.name): str(container.id) for container in found}

    def look(self, label: str, engine: docker.DockerClient) -> Snapshot:
        """What is there now, kept under `label`."""
        files = {
            str(path.relative_to(self.root)): (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
            for path in self.root.rglob("*")
            if path.is_file() and path.name != ".runner_system_id" and self.metrics_data not in path.parents
        }
        runners = sorted(runner.id for runner in self.gitlab.runners)
        self.seen[label] = Snapshot(self.containers(engine), files, runners)
        return self.seen[label]

    def scrape(self) -> str:
        """The exporter's answer."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            return bytes(answer.read()).decode()

    @property
    def metrics_data(self) -> Path:
        """Where watcher and exporter write."""
        return Paths(root=self.root, name=self.name).metrics_data

    @property
    def secrets(self) -> list[str]:
        """Everything that must show nowhere: the user's token, the note's, and every runner's."""
        runners = [runner.token for runner in self.gitlab.state.runners.values()]
        return [self.token, self.note_token, *runners]


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def journey(root: Path, address: str, runner_image: str, base_image: str) -> Iterator[Journey]:
    """A GitLab with a project, a merge request and a token file; nothing is set up on the box yet."""
    with GitLab(address) as gitlab, ProcessWatch() as watch:
        suite = REPOSITORY / "examples" / "ci-jobs"
        files = {
            f"ci-jobs/{path.name}": path.read_text() for path in suite.iterdir() if path.suffix in {".yaml", ".jsonl"}
        }
        # The same suite with a gate that nothing passes.
        strict = yaml.safe_load(files["ci-jobs/suite.yaml"])
        strict["gate"] = [{"metric": "tokens_per_second", "min": 1e9}]
        files["ci-jobs/strict.yaml"] = yaml.safe_dump(strict)
        project = gitlab.add_project("team/app", {"README.md": "# An app\n", **files})
        merge_request = gitlab.add_merge_request(project, {"changed.txt": "1"})
        bot = gitlab.add_user("eval-bot")
        gitlab.add_member(project, bot)
        note_token = gitlab.add_token("api", user=bot)
        gitlab.add_variable(project, "GPURIG_NOTE_TOKEN", note_token, masked=True)
        token = gitlab.add_token("create_runner")
        token_file = root / "token"
        token_file.write_text(token)
        token_file.chmod(0o600)
        name = f"e2e-{secrets.token_hex(4)}"
        port = free_port()
        options = [
            *("--url", gitlab.url, "--project", str(project.id), "--token-file", str(token_file), "--cpu"),
            *("--name", name, "--runner-image", runner_image, "--base-image", base_image),
            *("--metrics-listen", f"127.0.0.1:{port}", "--http-proxy", "", "--https-proxy", ""),
        ]
        yield Journey(
            gitlab=gitlab,
            project=project,
            merge_request=merge_request,
            root=root,
            name=name,
            token=token,
            note_token=note_token,
            options=options,
            metrics_port=port,
            watch=watch,
        )
