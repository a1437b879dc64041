"""`gpurig doctor` on a real engine, and over NVIDIA's real binding with a fake NVML and real CDI folders."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gpurig.common.process import Finished, run
from gpurig.provisioning.disk import LocalDisk
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.settings import make_settings
from gpurig.provisioning.state import Registration, State, save_state
from standins.gitlab import GitLab
from standins.missing import missing
from standins.nvml import FakeNvml

if TYPE_CHECKING:
    import docker

CDI_FOLDER = Path("/etc/cdi")
UUID = f"GPU-{uuid.uuid4()}"
NVML = {
    "driver": "580.95.05",
    "nvml": "13.580.95.05",
    "cuda": 13000,
    "gpu": [
        {
            "uuid": UUID,
            "name": "NVIDIA GeForce RTX 4090",
            "pci": "00000000:01:00.0",
            "compute": "8.9",
            "memory_total": 24564 * 2**20,
            "mig_mode": 0,
        }
    ],
}
TOKEN = "glpat-0123456789abcdefghij"

pytestmark = pytest.mark.docker


def gpurig(*arguments: str, env: dict[str, str] | None = None) -> Finished:
    environment = {**os.environ, **(env or {})}
    environment.pop("DOCKER_HOST", None)
    return run([sys.executable, "-m", "gpurig.runner", *arguments], timeout_s=120, env=environment)


def checks(done: Finished) -> dict[str, dict[str, Any]]:
    assert "Traceback" not in done.stderr, done.stderr
    return {one["name"]: one for one in json.loads(done.stdout)["checks"]}


@pytest.fixture
def cpu_box(engine: docker.DockerClient, base_image: str, tmp_path: Path) -> list[str]:
    """Options with which this machine is a CPU box that needs nothing from a registry."""
    return ["--root", str(tmp_path), "--runner-image", base_image, "--cpu", "--metrics-listen", "off"]


def test_before_set_up_a_box_with_an_engine_is_fine_and_gitlab_is_skipped(
    engine: docker.DockerClient, cpu_box: list[str]
) -> None:
    done = gpurig("doctor", "--json", *cpu_box)
    found = checks(done)
    assert {name: one["message"] for name, one in found.items() if one["status"] == "failed"} == {}
    assert done.code == 0
    assert found["engine"]["found"] == engine.version()["Version"]
    assert found["settings"]["message"] == "this box is not set up yet"
    assert found["gitlab"]["message"] == "nobody said which GitLab: give --url"
    assert found["runner image"]["status"] == found["image space"]["status"] == "ok"


def test_the_text_fits_in_80_columns_and_ends_with_the_count(cpu_box: list[str]) -> None:
    lines = gpurig("doctor", *cpu_box).stdout.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert re.fullmatch(r"\d+ fine(, \d+ to look at)?, \d+ skipped; .+", lines[-1])
    assert all(line.startswith(("ok  ", "warn", "FAIL", "skip", "  ")) for line in lines[:-2])


def test_only_gitlab_failing_ends_with_5_and_the_box_failing_with_4(
    gitlab: GitLab, cpu_box: list[str], tmp_path: Path
) -> None:
    gitlab.fail("status", status=500)
    assert gpurig("doctor", *cpu_box, "--url", gitlab.url).code == 5
    blocked = tmp_path / "a-file"
    blocked.touch()
    assert gpurig("doctor", *cpu_box, "--url", gitlab.url, "--root", str(blocked / "x")).code == 4


def test_a_runner_image_that_no_registry_has_ends_with_5(cpu_box: list[str]) -> None:
    # Port 1 of this machine is no registry.
    done = gpurig("doctor", "--json", *cpu_box, "--runner-image", "127.0.0.1:1/gitlab-runner:none")
    assert done.code == 5
    found = checks(done)["runner image"]
    assert found["status"] == "failed"
    assert found["commands"][0]["argv"] == ["docker", "pull", "127.0.0.1:1/gitlab-runner:none"]


def test_a_port_that_a_stranger_has_ends_with_4(cpu_box: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        done = gpurig("doctor", "--json", *cpu_box, "--metrics-listen", f"127.0.0.1:{port}")
    assert done.code == 4
    assert f"port {port} is in use" in checks(done)["metrics port"]["message"]


def test_no_engine_and_one_that_does_not_answer_name_the_fix(tmp_path: Path, cpu_box: list[str]) -> None:
    found = checks(gpurig("doctor", "--json", *cpu_box, "--docker-host", f"unix://{tmp_path}/absent.sock"))
    assert found["engine"]["status"] == "failed"
    assert found["runner image"]["status"] == found["image space"]["status"] == "skipped"
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    done = gpurig("doctor", "--json", *cpu_box, "--docker-host", f"unix://{path}")
    assert done.code == 4
    assert "does not answer" in checks(done)["engine"]["message"]


def test_after_set_up_it_knows_what_up_was_told(gitlab: GitLab, tmp_path: Path, base_image: str) -> None:
    given = {"url": gitlab.url, "runner_type": "project", "target": "1", "cpu": True, "runner_image": base_image}
    given["metrics_listen"] = "off"
    state = State(
        registrations=(
            Registration(
                key="cpu",
                spec="x",
                url=gitlab.url,
                id=7,
                token="glrt-planted-secret-000",
                description="d",
                tags=("cpu",),
                obtained_at=datetime.now(UTC),
            ),
        ),
        settings=make_settings(given).model_dump(mode="json"),
    )
    save_state(LocalDisk(), Paths(root=tmp_path), state)
    done = gpurig("doctor", "--json", "--root", str(tmp_path), env={"GPURIG_TOKEN": TOKEN})
    found = checks(done)
    assert found["settings"]["message"].startswith("of the last up, from ")
    assert found["gitlab"]["found"] == gitlab.url
    assert found["runner image"]["found"] == base_image
    assert found["runner tokens"]["status"] == "ok"
    assert found["token"]["message"].startswith("GitLab does not know the token")
    assert done.code == 5
    for secret in (TOKEN, "glrt-planted-secret-000"):
        assert secret not in done.stdout + done.stderr


def test_a_damaged_state_is_a_finding_and_the_rest_is_checked_all_the_same(tmp_path: Path, cpu_box: list[str]) -> None:
    paths = Paths(root=tmp_path)
    paths.config_dir.mkdir(parents=True)
    paths.state.write_text("{")
    done = gpurig("doctor", "--json", *cpu_box)
    assert done.code == 4
    found = checks(done)
    assert "damaged" in found["settings"]["message"]
    assert found["engine"]["status"] == "ok"


def test_a_settings_file_says_what_the_box_shall_become(gitlab: GitLab, tmp_path: Path, base_image: str) -> None:
    file = tmp_path / "box.toml"
    token = gitlab.add_token("create_runner")
    (tmp_path / "token").write_text(token)
    file.write_text(
        f'url = "{gitlab.url}"\nproject = "1"\nname = "lab"\ncpu = true\nmetrics_listen = "off"\n'
        f'runner_image = "{base_image}"\ntoken_file = "token"\n'
    )
    done = gpurig("doctor", "--json", "--root", str(tmp_path), "--settings", str(file))
    found = checks(done)
    assert done.code == 0, done.stdout
    assert found["gitlab"]["found"] == gitlab.url
    assert found["token"]["status"] == "ok"
    assert "/lab" in found["folders"]["found"]
    assert token not in done.stdout
    file.write_text("urll = 3\n")
    assert gpurig("doctor", "--settings", str(file)).code == 2


def test_the_default_runner_image_comes_from_the_mirror(tmp_path: Path) -> None:
    options = ["--root", str(tmp_path), "--cpu", "--metrics-listen", "off", "--registry-mirror", "127.0.0.1:1/hub"]
    found = checks(gpurig("doctor", "--json", *options))["runner image"]
    assert found["needed"].startswith("127.0.0.1:1/hub/gitlab/gitlab-runner:")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--url", "gitlab.example.com"], "needs http:// or https://"),
        (["--metrics-listen", "9476"], "--metrics-listen"),
        (["--name", "../x"], "--name"),
        (["--cuda", "newest"], "--cuda"),
        (["--settings", "/does/not/exist"], "cannot read"),
        (["--token-file", "/does/not/exist"], "cannot read"),
    ],
)
def test_a_wrong_option_is_bad_input(options: list[str], words: str) -> None:
    done = gpurig("doctor", *options)
    assert done.code == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def spec(engine: docker.DockerClient) -> Iterator[Path]:
    """A path for a CDI spec that the engine reads; its folder is left as it was."""
    if str(CDI_FOLDER) not in (engine.info().get("CDISpecDirs") or []):
        missing(f"this engine reads no CDI specs from {CDI_FOLDER}", "GPURIG_REQUIRE_DOCKER")
    path = CDI_FOLDER / f"gpurig-doctor-{uuid.uuid4().hex}.json"
    try:
        CDI_FOLDER.mkdir(exist_ok=True)
        path.touch()
    except PermissionError:
        missing(f"this user may not write to {CDI_FOLDER}", "GPURIG_REQUIRE_DOCKER")
    path.unlink()
    yield path
    path.unlink(missing_ok=True)


def spec_text(library: Path, driver: str) -> str:
    """A spec as nvidia-ctk writes it, for the fake card alone."""
    return json.dumps(
        {
            "cdiVersion": "0.5.0",
            "kind": "nvidia.com/gpu",
            "devices": [{"name": UUID, "containerEdits": {"deviceNodes": [{"path": "/dev/null"}]}}],
            "containerEdits": {
                "hooks": [
                    {
                        "hookName": "createContainer",
                        "path": "/usr/bin/nvidia-cdi-hook",
                        "args": ["nvidia-cdi-hook", "enable-cuda-compat", f"--host-driver-version={driver}"],
                    }
                ],
                "mounts": [{"hostPath": str(library), "containerPath": "/usr/lib/libnvidia-ml.so.1"}],
            },
        }
    )


def nvidia_box(fake: FakeNvml, base_image: str, root: Path) -> dict[str, dict[str, Any]]:
    fake.set(NVML)
    options = ["--root", str(root), "--runner-image", base_image, "--metrics-listen", "off"]
    return checks(gpurig("doctor", "--json", *options, env=fake.environment()))


def test_a_fresh_spec_is_fine_and_the_engine_can_hand_the_card_over(
    fake_nvml: FakeNvml, spec: Path, base_image: str, tmp_path: Path
) -> None:
    spec.write_text(spec_text(fake_nvml.library, "580.95.05"))
    found = nvidia_box(fake_nvml, base_image, tmp_path)
    assert found["gpu"]["found"] == "NVIDIA GeForce RTX 4090"
    assert found["cdi spec"]["status"] == "ok", found["cdi spec"]
    assert found["gpu wiring"]["found"] == "by CDI"
    assert found["cgroup driver"]["status"] == "ok"


def test_a_spec_of_the_driver_before_the_update_is_stale(
    fake_nvml: FakeNvml, spec: Path, base_image: str, tmp_path: Path
) -> None:
    spec.write_text(spec_text(fake_nvml.library, "575.57.08"))
    found = nvidia_box(fake_nvml, base_image, tmp_path)["cdi spec"]
    assert found["status"] == "failed"
    assert "was written for driver 575.57.08, and 580.95.05 is loaded" in found["message"]
    assert found["commands"][-1]["argv"] == ["nvidia-ctk", "cdi", "generate", f"--output={spec}"]


def test_a_spec_whose_library_is_gone_is_stale(
    fake_nvml: FakeNvml, spec: Path, base_image: str, tmp_path: Path
) -> None:
    spec.write_text(spec_text(tmp_path / "libcuda.so", "580.95.05"))
    found = nvidia_box(fake_nvml, base_image, tmp_path)["cdi spec"]
    assert found["status"] == "failed"
    assert "are gone" in found["message"]


def test_without_a_spec_the_card_is_out_of_reach(
    fake_nvml: FakeNvml, spec: Path, base_image: str, tmp_path: Path
) -> None:
    found = nvidia_box(fake_nvml, base_image, tmp_path)
    assert found["cdi spec"]["status"] in {"failed", "warning"}
    assert found["cdi spec"]["commands"][-1]["argv"][:3] == ["nvidia-ctk", "cdi", "generate"]


def test_a_broken_driver_is_told_with_detections_own_words(
    fake_nvml: FakeNvml, base_image: str, tmp_path: Path, engine: docker.DockerClient
) -> None:
    fake_nvml.set({**NVML, "error": ["nvmlInitWithFlags LIB_RM_VERSION_MISMATCH"]})
    options = ["--root", str(tmp_path), "--runner-image", base_image, "--metrics-listen", "off"]
    done = gpurig("doctor", "--json", *options, env=fake_nvml.environment())
    found = checks(done)["gpu"]
    assert done.code == 4
    assert found["status"] == "failed"
    assert "reboot" in found["hint"]
    assert gpurig("doctor", "--json", "--cpu", *options, env=fake_nvml.environment()).code == 0
