"""Watcher and exporter in their containers on real engines: they tell what one outside tells, and reach no more."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess  # noqa: TID251 - programs that run beside the test
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gpurig.common.waiting import wait_for
from gpurig.images.build import ensure_image
from gpurig.provisioning.container_spec import ContainerSpec, Mount
from gpurig.provisioning.docker_engine import DockerEngine
from gpurig.provisioning.engine_facts import DEFAULT_ADDRESS
from gpurig.provisioning.facts import HostFacts
from gpurig.provisioning.metrics_containers import BOX_FACTS
from gpurig.provisioning.plan import Plan
from gpurig.runner.exporter.image import plan_exporter_image
from prometheus_client.parser import text_string_to_metric_families
from standins import wired_box
from standins.gitlab_containers import JobContainers, job_containers
from standins.journey import free_port
from standins.nvml import FakeNvml
from standins.nvml.library import IN_CONTAINER, VARIABLE
from standins.own_engine import copy_image

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.docker

GPU = "GPU-aaaaaaaa-0000-4000-8000-000000000000"
CARD = {
    "uuid": GPU,
    "name": "NVIDIA GeForce RTX 4090",
    "pci": "00000000:01:00.0",
    "compute": "8.9",
    "memory_total": 24564 * 1024**2,
    "memory_used": 5 * 1024**3,
    "utilization_gpu": 80,
    "power_mw": 300000,
    "power_limit_mw": 450000,
}
HOST = {"driver": "580.95.05", "nvml": "13.580.95.05", "cuda": 13000}
_SCRAPE = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9476/metrics').read().decode())"
SECRET = "the-owners-secret"


@dataclass
class Rig:
    """An engine with the exporter's image, and the plan of a box on it."""

    client: docker.DockerClient
    address: str
    plan: Plan
    jobs: JobContainers
    fake: FakeNvml

    @property
    def engine(self) -> DockerEngine:
        return DockerEngine(self.client, self.address)

    @contextlib.contextmanager
    def running(self, role: str) -> Iterator[Any]:
        """The plan's container of that role, over the fake NVML, with no network."""
        planned = next(one for one in self.plan.containers if one.role == role)
        mark = uuid.uuid4().hex[:8]
        changes: dict[str, Any] = {"name": f"gpurig-test-{mark}", "instance": f"test-{mark}"}
        changes |= {"restart": False, "ports": (), "network": "none"}
        if role == "exporter":
            state = self.fake.state
            changes["mounts"] = (*planned.mounts, Mount(str(self.fake.library), IN_CONTAINER, read_only=True))
            changes["mounts"] += (Mount(str(state.parent), "/fake", read_only=True),)
            changes["environment"] = ((VARIABLE, f"/fake/{state.name}"),)
            changes["command"] = (*planned.command, "--period", "0.1")
        spec: ContainerSpec = replace(planned, **changes)
        made = self.engine.create(spec, str(self.client.images.get(spec.image).id))
        try:
            self.engine.start(made)
            yield self.client.containers.get(made)
        finally:
            self.engine.remove(made)


@pytest.fixture(params=["current", "oldest"])
def rig(
    request: pytest.FixtureRequest,
    engine: docker.DockerClient,
    base_image: str,
    nvml_library: Path,
    tmp_path: Path,
) -> Iterator[Rig]:
    image = ensure_image(engine, plan_exporter_image(base_image=base_image), on_line=lambda _: None).tag
    client, address = engine, os.environ.get("DOCKER_HOST", DEFAULT_ADDRESS)
    if request.param == "oldest":
        client = request.getfixturevalue("legacy_engine")
        request.getfixturevalue("legacy_base_image")
        address = request.getfixturevalue("legacy_address")
        copy_image(engine, client, image)
    facts = DockerEngine(client, address).facts()
    plan = wired_box.plan_of(HostFacts(), facts, image, "gpu", tmp_path / "box")
    wired_box.make_metrics_folders(plan)
    plan.paths.models.mkdir(parents=True)
    plan.paths.config_dir.mkdir(parents=True, mode=0o700)
    entry = {"id": 8, "token": f"glrt-{SECRET}", "description": "box", "tags": ["gpurig"], "expires_at": None}
    plan.paths.state.write_text(json.dumps({"version": 1, "registrations": [entry]}))
    plan.paths.state.chmod(0o600)
    (tmp_path / "fake").mkdir(mode=0o755)
    fake = FakeNvml(nvml_library, tmp_path / "fake" / "nvml.txt")
    fake.set({**HOST, "gpu": [CARD]})
    with job_containers(client, base_image) as jobs:
        yield Rig(client, address, plan, jobs, fake)


def _series(text: str) -> dict[str, dict[str, float]]:
    """By metric, then by job."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            found.setdefault(one.name, {})[one.labels.get("job_id") or one.labels.get("collector", "")] = one.value
    return found


def _inside(container: Any) -> dict[str, dict[str, float]]:
    code, output = container.exec_run(["/opt/gpurig/bin/python", "-c", _SCRAPE])
    return _series(output.decode()) if code == 0 else {}


@contextlib.contextmanager
def _outside(rig: Rig, port: int) -> Iterator[Callable[[], dict[str, dict[str, float]]]]:
    """An exporter on the host that follows the engine itself."""
    import urllib.request

    words = ["metrics", "serve", "--listen", f"127.0.0.1:{port}", "--engine", rig.address, "--period", "0.1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gpurig.runner", *words, "--root", str(rig.plan.paths.root)],
        env=rig.fake.environment(),
        stderr=subprocess.DEVNULL,
    )

    def scrape() -> dict[str, dict[str, float]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                return _series(answer.read().decode())
        except OSError:
            return {}

    try:
        yield scrape
    finally:
        process.terminate()
        process.wait(20)


def _until(
    scrape: Callable[[], dict[str, dict[str, float]]], condition: Callable[[dict[str, dict[str, float]]], bool]
) -> dict[str, dict[str, float]]:
    last: dict[str, dict[str, float]] = {}

    def look() -> bool:
        nonlocal last
        last = scrape()
        return condition(last)

    assert wait_for(look, timeout_s=60, interval_s=0.2), last
    return last


def test_the_exporter_in_its_container_and_one_outside_tell_the_same_job(rig: Rig) -> None:
    """A real process in a container as gitlab-runner labels it, which the fake NVML says uses the GPU."""
    container = rig.jobs.run(["sleep", "600"])
    container.reload()
    pid, job = int(container.attrs["State"]["Pid"]), rig.jobs.job_of(container)
    held = 3 * 1024**3
    rig.fake.set({**HOST, "gpu": [{**CARD, "process": [f"{pid} {held} compute"]}]})

    def told(now: dict[str, dict[str, float]]) -> bool:
        return now.get("gpurig_job_gpu_seconds_total", {}).get(job, 0) > 0.2

    with rig.running("watcher") as watcher, rig.running("exporter") as exporter, _outside(rig, free_port()) as out:
        log = lambda: watcher.logs().decode() + exporter.logs().decode()  # noqa: E731 - for the messages below
        for scrape in (lambda: _inside(exporter), out):
            now = _until(scrape, told)
            assert now["gpurig_job_gpu_memory_bytes"][job] == held, log()
            assert now["gpurig_job_memory_peak_bytes"][job] == held
            assert now["gpurig_job_energy_joules_total"][job] > 0
        inside = _inside(exporter)
        assert all(inside["gpurig_collector_success"][name] for name in ("box", "jobs", "engine", "state", "nvidia"))
        assert inside["gpurig_runner_entries"] == {"": 1}
        usage = json.loads((rig.plan.paths.usage / "42" / f"{job}.json").read_text())
        assert str(held) in json.dumps(usage)
        container.kill()
        _until(lambda: _inside(exporter), lambda now: job in now.get("gpurig_job_end_timestamp_seconds", {}))
        assert SECRET not in log()
        assert SECRET not in json.dumps([watcher.attrs, exporter.attrs])


def test_a_job_that_dies_of_memory_is_said_to_have(rig: Rig) -> None:
    eat = ["python3", "-c", "b = [bytearray(1 << 20) for _ in range(400)]"]
    words = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    with rig.running("watcher"), rig.running("exporter") as exporter:
        _until(lambda: _inside(exporter), lambda now: now.get("gpurig_collector_success", {}).get("engine") == 1)
        host = rig.jobs.run(eat, mem_limit="64m", memswap_limit="64m")
        gpu = rig.jobs.run(["sh", "-c", f"echo '{words}'; exit 1"])
        for container, memory in ((host, "host"), (gpu, "gpu")):
            line = f'gpurig_job_oom_total{{job_id="{rig.jobs.job_of(container)}",project_id="42",pipeline_id="9",'
            line += f'runner="abcdefghi",memory="{memory}"}} 1.0'

            def said(line: str = line) -> bool:
                return line in exporter.exec_run(["/opt/gpurig/bin/python", "-c", _SCRAPE]).output.decode()

            assert wait_for(said, timeout_s=60, interval_s=0.2), line


def _tries(container: Any, *programs: str) -> list[str]:
    """Which of the Python programs succeed in the container, as the user that the container has."""
    done = []
    for program in programs:
        code, output = container.exec_run(["/opt/gpurig/bin/python", "-c", program])
        assert b"SyntaxError" not in output, program
        done += [program] if code == 0 else []
    return done


def test_the_exporters_container_reaches_neither_engine_nor_tokens_nor_what_processes_hold(rig: Rig) -> None:
    secret = {"SECRET": SECRET}
    asleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(asleep, env={**os.environ, **secret}) as mine:
        try:
            job = rig.jobs.run(["sleep", "600"], environment=secret, user="1000:1000")
            job.reload()
            with rig.running("exporter") as exporter:
                _until(lambda: _inside(exporter), bool)
                for pid in (mine.pid, int(job.attrs["State"]["Pid"])):
                    # It sees the process, and to whom it belongs; not what it holds, and it cannot end it.
                    seen = _tries(
                        exporter,
                        f"open('/proc/{pid}/cgroup').read()",
                        f"open('/proc/{pid}/environ').read()",
                        f"open('/proc/{pid}/mem', 'rb')",
                        f"import os; os.listdir('/proc/{pid}/fd')",
                        f"import os; os.listdir('/proc/{pid}/root/etc')",
                        f"import os; os.kill({pid}, 0)",
                        f"import os; os.kill({pid}, 9)",
                    )
                    assert seen == [f"open('/proc/{pid}/cgroup').read()"]
                assert (
                    _tries(
                        exporter,
                        "import os; assert os.path.exists('/var/run/docker.sock')",
                        "import os; assert os.path.exists('/run/docker.sock')",
                        f"open({str(rig.plan.paths.state)!r})",
                        "open('/etc/gpurig/state.json')",
                        "import os; assert os.path.exists('/box')",
                        f"open({BOX_FACTS!r}, 'a')",
                        "open('/run/gpurig/box/new', 'w')",
                        "open('/new', 'w')",
                        "open('/opt/gpurig/new', 'w')",
                        "import os; os.setuid(0)",
                    )
                    == []
                )
                code, status = exporter.exec_run(["cat", "/proc/self/status"])
                fields = dict(line.split(":\t", 1) for line in status.decode().splitlines() if ":\t" in line)
                assert code == 0
                assert fields["Uid"].split()[0] == "60947"
                assert {fields[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
                assert fields["NoNewPrivs"] == "1"
            assert mine.poll() is None
        finally:
            mine.kill()


def test_the_watchers_container_answers_nobody_and_writes_to_its_folder_alone(rig: Rig) -> None:
    with rig.running("watcher") as watcher:
        facts = rig.plan.paths.box_facts / "facts.json"
        assert wait_for(facts.exists, timeout_s=30)
        assert wait_for(lambda: '"description": "box"' in facts.read_text(), timeout_s=30), watcher.logs()
        assert SECRET not in facts.read_text() + watcher.logs().decode()
        assert facts.stat().st_mode & 0o777 == 0o644
        assert watcher.attrs["HostConfig"]["NetworkMode"] == "none"
        assert watcher.attrs["HostConfig"]["PidMode"] == ""
        assert (
            _tries(
                watcher,
                "open('/box/etc/gpurig-test/state.json', 'a')",
                "open('/box/var/lib/gpurig-test/models/new', 'w')",
                "open('/new', 'w')",
                "import socket; socket.create_connection(('1.1.1.1', 53), 2)",
            )
            == []
        )
        done = watcher.exec_run(["cat", "/proc/self/status"]).output.decode()
        assert "CapBnd:\t0000000000000002" in done, "DAC_OVERRIDE and nothing else"
        watcher.stop(timeout=10)
        watcher.reload()
        assert watcher.attrs["State"]["ExitCode"] == 0


def test_a_watcher_whose_engine_is_silent_for_too_long_ends_to_be_started_anew(tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    words = ["--output", str(facts), "--engine", f"unix://{tmp_path}/none.sock", "--root", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "gpurig.runner", "metrics", "watch", *words, "--give-up", "1"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 4, done.stderr
    assert "the engine was silent for 1 s: there is no socket" in done.stderr
    assert json.loads(facts.read_text())["problems"]["engine"]
