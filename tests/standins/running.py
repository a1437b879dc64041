"""Start the tests' runner by hand, as `gpurig up` would: a folder with config.toml, the engine's socket, SIGQUIT."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

    from standins.gitlab import GitLab, Project, Runner

LABEL = "com.gitlab.gitlab-runner"


def register(server: GitLab, project: Project, *, tags: list[str], run_untagged: bool = False) -> Runner:
    """A project runner, made through the API."""
    import requests

    answer = requests.post(
        f"{server.url}/api/v4/user/runners",
        json={
            "runner_type": "project_type",
            "project_id": project.id,
            "tag_list": tags,
            "run_untagged": run_untagged,
        },
        headers={"PRIVATE-TOKEN": server.add_token("create_runner")},
        timeout=10,
    )
    answer.raise_for_status()
    return server.state.runners[answer.json()["id"]]


def config_toml(
    server: GitLab,
    runners: Mapping[str, Runner],
    docker_keys: Mapping[str, Any],
    runner_keys: Mapping[str, Any] | None = None,
    **keys: Any,
) -> str:
    """config.toml for these runners, by name; `runner_keys` go to each of them, `keys` to the top."""
    entries = [
        {
            "name": name,
            "url": server.url,
            "id": runner.id,
            "token": runner.token,
            "executor": "docker",
            **(runner_keys or {}),
            "docker": dict(docker_keys),
        }
        for name, runner in runners.items()
    ]
    return tomli_w.dumps({"concurrent": 2, "check_interval": 1, **keys, "runners": entries})


@contextlib.contextmanager
def running(engine: docker.DockerClient, image: str, folder: Path, text: str) -> Iterator[Container]:
    """The runner's container on `folder`/config.toml; afterwards it and its jobs' containers and volumes are gone."""
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(text, encoding="utf-8")
    volumes = {str(folder): {"bind": "/etc/gitlab-runner"}, "/var/run/docker.sock": {"bind": "/var/run/docker.sock"}}
    container = engine.containers.run(image, detach=True, network_mode="host", volumes=volumes)
    try:
        yield container
    finally:
        container.remove(force=True, v=True)
        remove_leftovers(engine, folder)


def remove_leftovers(engine: docker.DockerClient, folder: Path) -> None:
    """Remove containers and cache volumes of the runner whose configuration lies in `folder`."""
    path = folder / ".runner_system_id"
    if not path.is_file():
        return
    system_id = path.read_text(encoding="utf-8").strip()
    mine: dict[str, str | list[str] | bool] = {"label": f"{LABEL}.runner.system_id={system_id}"}
    for job in engine.containers.list(all=True, filters=mine):
        job.remove(force=True, v=True)
    for volume in engine.volumes.list(filters=dict(mine)):
        volume.remove(force=True)
