"""A recorded machine as a box: what detection sees on it as a host, and in the containers that it starts."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess  # noqa: TID251 - a runner that is ended by a signal
import sys
import tarfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pynvml
from gpurig.common.files import make_directory
from gpurig.common.process import run
from gpurig.provisioning.config_toml import config_document, render_config
from gpurig.provisioning.engine_facts import EngineFacts
from gpurig.provisioning.facts import HostFacts
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.plan import Box, ImageTags, Plan, plan_box
from gpurig.provisioning.settings import make_settings
from gpurig.provisioning.state import Registration
from gpurig.runner.metrics_files import metrics_folders

from standins import machines, running
from standins.gitlab import GitLab, Job

if TYPE_CHECKING:
    import docker

# Where the image has the machine's sysfs; its dev is the container's own.
RECORDED = "/recorded"
NAME = "gpurig-test"
DETECT = ["gpurig", "detect", "--json", "--host-root", RECORDED]
_REPOSITORY = Path(__file__).parents[2]
_PROGRAM = b'#!/bin/sh\nPYTHONPATH=/opt/gpurig exec python3 -B -m gpurig.runner "$@"\n'
_DOCKERFILE = b"""ARG BASE_IMAGE
FROM ${BASE_IMAGE}
COPY gpurig /opt/gpurig
COPY bin/gpurig /usr/local/bin/gpurig
COPY recorded /recorded
"""


def seen_by_host(machine: machines.Machine, folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """What `gpurig detect --json` prints on the machine; device files are this machine's own."""
    root = folder / "recorded"
    if not root.exists():
        root.mkdir()
        machine.build(root)
        (root / "dev").symlink_to("/dev")
    command = [sys.executable, "-m", "gpurig.runner", *DETECT[1:-1], str(root)]
    done = run(command, timeout_s=60, env=dict(environment))
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def image_of(engine: docker.DockerClient, base_image: str, machine: machines.Machine) -> str:
    """Build an image with gpurig and the machine's sysfs in it, without a network; its name."""
    files = {"Dockerfile": (_DOCKERFILE, 0o644), "bin/gpurig": (_PROGRAM, 0o755)}
    for portion in ("common", "provisioning", "runner"):
        folder = _REPOSITORY / portion
        files |= _sources(folder / "gpurig" / portion, f"gpurig/gpurig/{portion}")
    files |= _sources(Path(str(click.__file__)).parent, "gpurig/click")
    files["gpurig/pynvml.py"] = (Path(str(pynvml.__file__)).read_bytes(), 0o644)
    files |= {f"recorded/{name}": (text.encode(), 0o644) for name, text in machine.files.items()}
    links = {f"recorded/{name}": target for name, target in machine.links.items()} | {"recorded/dev": "/dev"}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, (content, mode) in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
        for name, target in sorted(links.items()):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    tag = f"gpurig-test-box:{hashlib.sha256(stream.getvalue()).hexdigest()[:16]}"
    stream.seek(0)
    engine.images.build(fileobj=stream, custom_context=True, tag=tag, rm=True, buildargs={"BASE_IMAGE": base_image})
    return tag


def _sources(folder: Path, target: str) -> dict[str, tuple[bytes, int]]:
    return {f"{target}/{path.relative_to(folder)}": (path.read_bytes(), 0o644) for path in sorted(folder.rglob("*.py"))}


def plan_of(host: HostFacts, facts: EngineFacts, image: str, layout: str, root: Path, **given: Any) -> Plan:
    """The plan of a box all of whose images are `image`; `given` are settings."""
    settings = make_settings(
        {"url": "http://127.0.0.1:1", "runner_type": "project", "target": "1", "layout": layout, "name": NAME, **given}
    )
    tags = ImageTags({"cpu": image, "cuda": image, "rocm": image}, image)
    return plan_box(host, facts, settings, paths=Paths(name=NAME, root=root), box=Box("box", "1"), images=tags)


def make_metrics_folders(plan: Plan) -> None:
    """What `up` makes before it starts the watcher and the exporter."""
    for folder, mode in metrics_folders(plan.paths):
        make_directory(folder, mode)


def config_text(plan: Plan, gitlab: GitLab) -> str:
    """The plan's config.toml for runners that a project of `gitlab` has: one of the tag entry-N for each entry."""
    project = gitlab.add_project("team/app")
    registrations = {}
    for number, entry in enumerate(plan.entries):
        runner = running.register(gitlab, project, tags=[f"entry-{number}"])
        registrations[entry.key] = Registration(
            key=entry.key,
            spec=entry.runner.digest(),
            url=gitlab.url,
            id=runner.id,
            token=runner.token,
            description=entry.runner.description,
            tags=entry.runner.tags,
            obtained_at=datetime.now(UTC),
            expires_at=None,
        )
    document = config_document(plan, registrations)
    for table in document["runners"]:
        # Containers of the oldest engine here have no network of their own.
        table["url"], table["docker"]["network_mode"] = gitlab.url, "none"
    return render_config(document)


@contextlib.contextmanager
def runner_process(engine: docker.DockerClient, address: str, folder: Path, text: str) -> Iterator[None]:
    """The tests' runner as a process of this machine, on an engine whose containers may have no network."""
    folder.mkdir()
    (folder / "config.toml").write_text(text)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "standins.runner", "run", "--config", str(folder / "config.toml")],
            env={**os.environ, "DOCKER_HOST": address, "PYTHONPATH": str(_REPOSITORY / "tests")},
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)
        running.remove_leftovers(engine, folder)


def run_job(server: GitLab, script: list[str], *, tag: str, services: Sequence[Mapping[str, Any]] = ()) -> Job:
    """Run a job with this script on the runner that has the tag, to its end; `services` as .gitlab-ci.yml has them."""
    project = server.state.projects[min(server.state.projects)]
    name = f"job-{uuid.uuid4().hex[:6]}"
    keys = {"tags": [tag], "script": script, **({"services": list(services)} if services else {})}
    job = server.create_pipeline(project, json.dumps({name: keys})).job(name)
    server.wait_for_jobs([job], 120)
    return job


def json_in(log: str) -> dict[str, Any]:
    """The JSON object that a job printed: from the line that is "{" to the line that is "}"."""
    lines = log.replace("\r", "").split("\n")
    document: dict[str, Any] = json.loads("\n".join(lines[lines.index("{") : lines.index("}") + 1]))
    return document
