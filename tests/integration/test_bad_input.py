"""Everything a user can get wrong or meet: one line that says what, a hint, the right exit code, nothing half made."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gpurig.common.process import Finished, run
from standins.gitlab import GitLab
from standins.missing import missing

if TYPE_CHECKING:
    import docker

NAME = "bad-input"


def gpurig(*words: str, cwd: Path, **environment: str) -> Finished:
    """`gpurig` as a user calls it, with nothing of the test's own environment that it reads."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GPURIG_", "CI_"))}
    return run([sys.executable, "-m", "gpurig.runner", *words], timeout_s=120, cwd=cwd, env={**kept, **environment})


def gpurig_job(*words: str, cwd: Path) -> Finished:
    return run([sys.executable, "-m", "gpurig.evaljobs", *words], timeout_s=120, cwd=cwd)


def says(done: Finished, code: int, what: str, fix: str) -> None:
    """It ended as errors must: the code, what happened, what to do, no traceback."""
    assert done.code == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert any(what in line and line.startswith(("gpurig: ", "gpurig-job: ", "  ", "Error: ")) for line in lines), lines
    assert any(fix in line for line in lines), lines


@dataclass
class Box:
    """A folder for the box's files, with a token, and the words of `gpurig up` for a GitLab."""

    folder: Path

    def up(self, url: str, *more: str, **environment: str) -> Finished:
        token = self.folder / "token"
        if not token.exists():
            token.write_text("glpat-aaaaaaaaaaaaaaaaaaaa")
        words = ["up", "--url", url, "--project", "1", "--token-file", str(token), "--cpu", "--name", NAME]
        words += ["--root", str(self.folder / "root"), "--metrics-listen", "off", *more]
        return gpurig(*words, cwd=self.folder, **environment)

    @property
    def left(self) -> list[str]:
        """Every file below the root."""
        return [str(path) for path in (self.folder / "root").rglob("*")]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


# What GitLab does -> what the user reads.
GITLAB_FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"kind": "status", "status": 401, "body": '{"message":"401 Unauthorized"}'}, "answered 401", "token"),
    ({"kind": "status", "status": 403, "body": '{"message":"403 Forbidden"}'}, "answered 403", "create_runner"),
    ({"kind": "status", "status": 404, "body": '{"message":"404 Not Found"}'}, "404", "hint"),
    ({"kind": "status", "status": 500}, "answered 500", "try again"),
    ({"kind": "garbage"}, "not GitLab's API", "login page"),
    ({"kind": "not-http"}, "127.0.0.1", "hint"),
    ({"kind": "reset"}, "127.0.0.1", "hint"),
    ({"kind": "cut"}, "127.0.0.1", "hint"),
]


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "case", GITLAB_FAULTS, ids=lambda case: f"{case[0]['kind']} {case[0].get('status', '')}".strip()
)
def test_whatever_gitlab_answers_is_one_line_and_nothing_is_made(
    box: Box, gitlab: GitLab, base_image: str, case: tuple[dict[str, Any], str, str]
) -> None:
    fault, what, fix = case
    gitlab.add_project("team/app")
    gitlab.fail(**fault)
    says(box.up(gitlab.url, "--base-image", base_image), 5, what, fix)
    assert gitlab.runners == []
    assert box.left == []


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
def test_a_gitlab_that_is_not_there_is_one_line(box: Box, base_image: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    says(box.up(f"http://127.0.0.1:{port}", "--base-image", base_image), 5, "cannot reach", "check the URL")
    assert box.left == []


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
def test_a_certificate_of_an_unknown_authority_names_the_option(box: Box, tls_gitlab: GitLab, base_image: str) -> None:
    done = box.up(tls_gitlab.url, "--base-image", base_image, REQUESTS_CA_BUNDLE="", CURL_CA_BUNDLE="")
    says(done, 5, "certificate", "--tls-ca-file")
    assert box.left == []


@pytest.mark.docker
def test_a_runner_that_was_created_is_deleted_when_a_later_step_fails(
    box: Box, gitlab: GitLab, engine: docker.DockerClient, base_image: str
) -> None:
    gitlab.add_project("team/app")
    (box.folder / "token").write_text(gitlab.add_token("create_runner"))
    project = str(next(iter(gitlab.state.projects)))
    done = box.up(gitlab.url, "--project", project, "--base-image", base_image, "--runner-image", "gpurig-none:0")
    assert done.code in {4, 5}, done.stderr
    assert "Traceback" not in done.stderr
    created = [
        one for one in gitlab.requests if (one.request.method, one.request.path) == ("POST", "/api/v4/user/runners")
    ]
    assert len(created) == 1, gitlab.requests
    assert gitlab.runners == []
    assert box.left == []
    assert engine.containers.list(all=True, filters={"label": f"gpurig.instance={NAME}"}) == []


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
def test_a_metrics_port_in_use_is_named_before_anything_is_made(box: Box, gitlab: GitLab, base_image: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = box.up(gitlab.url, "--base-image", base_image, "--metrics-listen", f"127.0.0.1:{port}")
    says(done, 4, str(port), "--metrics-listen")
    assert gitlab.requests == []
    assert box.left == []


@contextmanager
def _read_only_folder(folder: Path) -> Iterator[None]:
    if run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(folder)], timeout_s=10).code != 0:
        missing("this user may not mount a read-only file system", "GPURIG_REQUIRE_MOUNT")
    try:
        yield
    finally:
        assert run(["umount", str(folder)], timeout_s=10).code == 0


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
def test_a_read_only_etc_is_named_with_the_way_out(box: Box, gitlab: GitLab, base_image: str) -> None:
    (box.folder / "root/etc").mkdir(parents=True)
    with _read_only_folder(box.folder / "root/etc"):
        done = box.up(gitlab.url, "--base-image", base_image)
    says(done, 4, "/etc", "--root")
    assert gitlab.runners == []


def test_no_docker_socket_is_named_with_the_fix(box: Box, gitlab: GitLab) -> None:
    done = box.up(gitlab.url, "--docker-host", f"unix://{box.folder}/none.sock")
    says(done, 4, "none.sock", "hint")
    assert gitlab.requests == []
    assert box.left == []


def test_a_socket_that_this_user_may_not_use_is_named_with_the_fix(box: Box, gitlab: GitLab) -> None:
    if os.geteuid() != 0:
        missing("only root may become another user", "GPURIG_REQUIRE_ROOT")
    box.folder.chmod(0o755)
    path = box.folder / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0o600)
        # The check runs as "nobody": root may use every socket. Modules are loaded first, nobody cannot read them.
        script = (
            "import os, sys, docker, gpurig.common.errors\n"
            "from gpurig.provisioning.engine import connect\n"
            f"docker.DockerClient(base_url='unix://{path}', version='1.41').close()\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "try: connect(sys.argv[1])\n"
            "except gpurig.common.errors.ApplianceError as it: print(it.exit_code, it.message, '|', it.hint)"
        )
        done = run([sys.executable, "-c", script, f"unix://{path}"], timeout_s=60)
    assert done.stdout.startswith("4 "), done.stdout + done.stderr
    assert "permission" in done.stdout
    assert "docker" in done.stdout.partition("|")[2]


SUITE = """version: 1
name: s
generator: {model: demo-generator}
samples:
  - {id: a, input: x}
"""
SUITES: list[tuple[str, str, str]] = [
    ("a wrong type", SUITE.replace("input: x", "input: [1]"), "input"),
    ("an unknown check", SUITE + "checks: [contians: x]\n", "contains"),
    ("a duplicate id", SUITE + "  - {id: a, input: y}\n", '"a"'),
    ("no samples", SUITE.replace("\n  - {id: a, input: x}", " []"), "samples"),
    ("an unknown key", SUITE + "gates: []\n", "gate"),
    ("no YAML", SUITE + "checks: [", "suite.yaml"),
]


@pytest.mark.parametrize(("text", "what"), [case[1:] for case in SUITES], ids=[case[0] for case in SUITES])
def test_a_wrong_suite_names_file_and_line_and_field(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "suite.yaml").write_text(text)
    for command in ("validate", "eval"):
        done = gpurig_job(command, ".", cwd=tmp_path)
        assert done.code == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert what in done.stderr
        assert "suite.yaml:" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["suite.yaml"]


def test_a_truncated_model_is_named_and_leaves_no_records(tmp_path: Path) -> None:
    from gpurig.common.assets import find_asset

    bundled = find_asset("gpurig.evaljobs", "evaljobs/gpurig/evaljobs/assets/models/demo-generator.gguf")
    for size in (0, 3, 24, 2000, bundled.stat().st_size - 1):
        (tmp_path / "cut.gguf").write_bytes(bundled.read_bytes()[:size])
        (tmp_path / "suite.yaml").write_text(SUITE.replace("demo-generator", "./cut.gguf"))
        done = gpurig_job("generate", ".", cwd=tmp_path)
        says(done, 2, "cut.gguf", "hint")
        assert not (tmp_path / "report").exists()
