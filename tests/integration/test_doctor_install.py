"""`gpurig up --install-missing`: a stale CDI spec is really written anew, by commands that were shown and agreed to."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gpurig.common.process import Finished, run
from standins.missing import missing
from standins.nvml import FakeNvml

if TYPE_CHECKING:
    import docker

CDI_FOLDER = Path("/etc/cdi")
UUID = f"GPU-{uuid.uuid4()}"
CARD = {
    "uuid": UUID,
    "name": "NVIDIA GeForce RTX 4090",
    "pci": "00000000:01:00.0",
    "compute": "8.9",
    "memory_total": 24564 * 2**20,
    "mig_mode": 0,
}
# What NVIDIA's program does, as far as this needs it: its version, and a spec of the driver that is loaded.
NVIDIA_CTK = """#!/bin/sh
echo "$@" >> {calls}
case "$1" in
--version) echo 'NVIDIA Container Toolkit CLI version 1.18.0' ;;
cdi) {body} ;;
esac
"""
WRITE = 'cat {fresh} > "${{3#--output=}}"'

pytestmark = pytest.mark.docker


def spec_text(driver: str) -> str:
    return (
        "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n"
        f"- name: {UUID}\n  containerEdits:\n    deviceNodes:\n    - path: /dev/null\n"
        "containerEdits:\n  hooks:\n  - hookName: createContainer\n    path: /usr/bin/nvidia-cdi-hook\n"
        f"    args: [nvidia-cdi-hook, enable-cuda-compat, --host-driver-version={driver}]\n"
    )


@dataclass(frozen=True)
class StaleBox:
    """A box with a fake RTX 4090 whose CDI spec is of the driver before.

    Attributes:
        spec: the stale spec.
        calls: what nvidia-ctk was asked.
    """

    spec: Path
    calls: Path
    program: Path
    fresh: Path
    root: Path
    environment: dict[str, str]

    def breaks(self, body: str) -> None:
        """Let `nvidia-ctk cdi` do something else than write a spec."""
        self.program.write_text(NVIDIA_CTK.format(calls=self.calls, body=body))

    def generated(self) -> list[str]:
        """The specs that it was asked for."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [line for line in lines if line.startswith("cdi generate")]

    def argv(self, *options: str) -> list[str]:
        # Port 1 is no GitLab: `up` ends before it would build anything.
        words = ["--url", "http://127.0.0.1:1", "--project", "1", "--metrics-listen", "off"]
        return [sys.executable, "-m", "gpurig.runner", "up", *words, "--root", str(self.root), *options]

    def up(self, *options: str) -> Finished:
        done = run(self.argv(*options), timeout_s=120, env=self.environment)
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture
def stale_box(engine: docker.DockerClient, fake_nvml: FakeNvml, tmp_path: Path) -> Iterator[StaleBox]:
    if os.geteuid() != 0:
        missing("installing takes root", "GPURIG_REQUIRE_ROOT")
    if str(CDI_FOLDER) not in (engine.info().get("CDISpecDirs") or []):
        missing(f"this engine reads no CDI specs from {CDI_FOLDER}", "GPURIG_REQUIRE_DOCKER")
    fake_nvml.set({"driver": "580.95.05", "nvml": "13.580.95.05", "cuda": 13000, "gpu": [CARD]})
    fresh = tmp_path / "fresh.yaml"
    fresh.write_text(spec_text("580.95.05"))
    program = tmp_path / "bin" / "nvidia-ctk"
    program.parent.mkdir()
    environment = fake_nvml.environment()
    environment.pop("DOCKER_HOST", None)
    environment |= {"PATH": f"{program.parent}:{environment['PATH']}", "GPURIG_TOKEN": "glpat-0123456789abcdefghij"}
    CDI_FOLDER.mkdir(exist_ok=True)
    spec = CDI_FOLDER / f"gpurig-install-{uuid.uuid4().hex}.yaml"
    box = StaleBox(spec, tmp_path / "calls", program, fresh, tmp_path / "root", environment)
    box.breaks(WRITE.format(fresh=fresh))
    program.chmod(0o755)
    spec.write_text(spec_text("575.57.08"))
    yield box
    spec.unlink(missing_ok=True)


def test_a_stale_spec_is_shown_written_anew_and_proven(stale_box: StaleBox) -> None:
    done = stale_box.up("--install-missing", "--yes")
    assert f"run: nvidia-ctk cdi generate --output={stale_box.spec}" in done.stderr
    assert "cdi spec: mended" in done.stderr
    assert stale_box.generated() == [f"cdi generate --output={stale_box.spec}"]
    assert stale_box.spec.read_text() == spec_text("580.95.05")
    again = stale_box.up("--install-missing", "--yes")
    assert "run:" not in again.stderr
    assert len(stale_box.generated()) == 1


def test_a_dry_run_shows_the_commands_and_runs_none(stale_box: StaleBox) -> None:
    done = stale_box.up("--install-missing", "--dry-run")
    assert f"run: nvidia-ctk cdi generate --output={stale_box.spec}" in done.stderr
    assert stale_box.generated() == []
    assert stale_box.spec.read_text() == spec_text("575.57.08")


def test_where_nobody_can_be_asked_nothing_runs(stale_box: StaleBox) -> None:
    done = stale_box.up("--install-missing")
    assert done.code == 2
    assert "--yes" in done.stderr
    assert stale_box.generated() == []


@pytest.mark.parametrize(("answer", "ran"), [("n", 0), ("y", 1)])
def test_on_a_terminal_the_user_decides(stale_box: StaleBox, answer: str, *, ran: int) -> None:
    terminal = shutil.which("script")
    if terminal is None:
        missing("no program `script` to make a terminal with", "GPURIG_REQUIRE_TERMINAL")
    command = shlex.join(stale_box.argv("--install-missing"))
    done = run([terminal, "-qec", command, "/dev/null"], timeout_s=120, env=stale_box.environment, stdin=f"{answer}\n")
    assert "Run these commands as root?" in done.stdout
    assert len(stale_box.generated()) == ran
    if not ran:
        assert done.code == 4
        assert "nothing was installed" in done.stdout


def test_a_command_that_fails_ends_with_4_and_its_last_line(stale_box: StaleBox) -> None:
    stale_box.breaks("echo 'failed to initialize NVML' >&2; exit 3")
    done = stale_box.up("--install-missing", "--yes")
    assert done.code == 4
    assert "ended with 3: failed to initialize NVML" in done.stderr


def test_a_command_that_mends_nothing_ends_with_4(stale_box: StaleBox) -> None:
    stale_box.breaks("true")
    done = stale_box.up("--install-missing", "--yes")
    assert done.code == 4
    assert "after its fix has run" in done.stderr
    assert len(stale_box.generated()) == 1
