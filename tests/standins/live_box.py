"""A box on the real engine with a GitLab of its own: `gpurig` run, killed and looked at as a user does."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess  # noqa: TID251 - the command is killed while it runs
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurig.provisioning.paths import Paths
from gpurig.provisioning.runners import GivenToken
from gpurig.runner.world import real_world

from standins.gitlab import GitLab

if TYPE_CHECKING:
    import docker

TESTS = Path(__file__).parents[1]


@dataclass
class Box:
    """One box with a token that may list runners."""

    gitlab: GitLab
    root: Path
    name: str
    options: list[str]

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Begin `gpurig up`."""
        return subprocess.Popen(
            [sys.executable, "-m", "gpurig.runner", "up", "--root", str(self.root), *self.options, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "80"},
        )

    def up(self, *more: str) -> tuple[int, str]:
        """`gpurig up` to its end: its exit code, and everything it printed."""
        with self.start(*more) as process:
            out, err = process.communicate(timeout=600)
            return process.returncode, out + err

    def killed(self, step: str, moment: str, *more: str) -> None:
        """`gpurig up` that dies by SIGKILL before, in or after a step."""
        words = ["up", "--root", str(self.root), *self.options, *more]
        done = subprocess.run(
            [sys.executable, "-m", "standins.killed_up", step, moment, *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr

    def lasting(self, engine: docker.DockerClient) -> dict[str, Any]:
        """Everything that lasts, without what differs from box to box."""
        runners = self.gitlab.runners
        root = str(self.root)

        def plain(text: str) -> str:
            for runner in runners:
                text = text.replace(runner.token, "TOKEN").replace(f"#{runner.id}", "#ID")
                text = re.sub(rf'(\bid = |"id": ){runner.id}\b', r"\1ID", text)
            text = text.replace(root, "ROOT").replace(self.gitlab.url, "URL").replace(self.name, "NAME")
            text = re.sub(r"\[[0-9a-f]{8}\]", "[BOX]", text)
            return re.sub(r'(_at"?(?: =|:)|"spec":|"box:cpu":|"cpu":) [^,\n]+', r"\1 X", text)

        kept = [path for path in self.root.rglob("*") if path.is_file() and path.name != ".runner_system_id"]
        return {
            "files": [name.replace(self.name, "NAME") for name in self.files()],
            "texts": {path.name: plain(path.read_text()) for path in kept},
            "modes": {path.name: oct(path.stat().st_mode) for path in kept},
            "containers": sorted((name.replace(self.name, "NAME"), on) for name, on in self.containers(engine).items()),
            "gitlab": [(plain(one.description), one.tag_list, one.run_untagged, one.locked) for one in runners],
        }

    def files(self) -> list[str]:
        """Every file and folder of the box."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))

    def containers(self, engine: docker.DockerClient) -> dict[str, str]:
        """The instance's containers and their states."""
        found = engine.containers.list(all=True, filters={"label": f"gpurig.instance={self.name}"})
        return {str(one.name): one.status for one in found}


@contextlib.contextmanager
def make_box(
    tmp_path: Path, engine: docker.DockerClient, address: str, runner: str, base: str, *, tls: bool = False
) -> Iterator[Box]:
    name = f"kill-{secrets.token_hex(4)}"
    token_file = tmp_path / "token"
    with GitLab(address, tls=tls) as gitlab:
        project = gitlab.add_project("lab/llm")
        token_file.write_text(gitlab.add_token("api"))
        root = tmp_path / "box"
        root.mkdir()
        options = ["--url", gitlab.url, "--project", str(project.id), "--token-file", str(token_file), "--cpu"]
        options += ["--name", name, "--runner-image", runner, "--base-image", base, "--metrics-listen", "off"]
        # The stand-in GitLab is on this machine.
        options += ["--http-proxy", "", "--https-proxy", ""]
        box = Box(gitlab, root, name, options)
        try:
            yield box
        finally:
            for one in engine.containers.list(all=True, filters={"label": f"gpurig.instance={name}"}):
                one.remove(force=True, v=True)
            uses = f"gpurig-uses/{real_world(GivenToken('')).box(Paths(root=root, name=name)).box_id}:"
            for tag in [tag for image in engine.images.list() for tag in image.tags if tag.startswith(uses)]:
                engine.images.remove(tag, noprune=True)
