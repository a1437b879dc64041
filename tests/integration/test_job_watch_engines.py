"""From processes to CI jobs on real engines, new and old: what runs, what ended, and what it died of."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from gpurig.common.waiting import wait_for
from gpurig.provisioning.engine_facts import DEFAULT_ADDRESS
from gpurig.provisioning.paths import Paths
from gpurig.runner.exporter.jobs.box_watch import BoxWatch
from gpurig.runner.exporter.jobs.cgroup import ContainerFinder, container_ids
from gpurig.runner.exporter.jobs.engine_api import EngineApi
from gpurig.runner.exporter.jobs.model import JobContainer
from gpurig.runner.exporter.jobs.watch import JobWatch
from standins.gitlab_containers import JobContainers, job_containers

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.docker

OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB"


class Rig:
    """An engine, its socket, and containers of jobs on it."""

    def __init__(self, client: docker.DockerClient, address: str, jobs: JobContainers) -> None:
        self.client, self.jobs = client, jobs
        self.socket = Path(address.removeprefix("unix://"))


@pytest.fixture(params=["current", "oldest"])
def rig(request: pytest.FixtureRequest, base_image: str) -> Iterator[Rig]:
    client = request.getfixturevalue("engine" if request.param == "current" else "legacy_engine")
    address = os.environ.get("DOCKER_HOST", DEFAULT_ADDRESS)
    if request.param == "oldest":
        request.getfixturevalue("legacy_base_image")
        address = request.getfixturevalue("legacy_address")
    with job_containers(client, base_image) as jobs:
        yield Rig(client, address, jobs)


class Followed:
    """A watch, and what it tells of one test's containers."""

    def __init__(self, socket_path: Path) -> None:
        self.said: list[str] = []
        self.watch = JobWatch(EngineApi(socket_path), say=self.said.append, first_wait_s=0.05)

    def __enter__(self) -> Self:
        self.watch.start()
        assert wait_for(lambda: not self.watch.problems, timeout_s=30), self.watch.problems
        return self

    def __exit__(self, *_: object) -> None:
        self.watch.stop()

    def find(self, container_id: str) -> JobContainer | None:
        return next((one for one in self.watch.containers() if one.id == container_id), None)

    def until(self, container_id: str, condition: Callable[[JobContainer], object]) -> JobContainer:
        def look() -> JobContainer | None:
            one = self.find(container_id)
            return one if one is not None and condition(one) else None

        found = wait_for(look, timeout_s=60, interval_s=0.02)
        assert found, (self.find(container_id), self.said, self.watch.problems)
        return found


def _ended(one: JobContainer) -> bool:
    return one.ended_at is not None


def test_a_job_is_known_while_it_runs_and_with_its_exit_code_when_it_has_ended(rig: Rig) -> None:
    before = rig.jobs.run(["sleep", "300"])
    with Followed(rig.socket) as followed:
        seen = followed.until(str(before.id), lambda one: not _ended(one))
        assert (seen.job.job_id, seen.job.project_id, seen.job.pipeline_id, seen.job.runner, seen.kind) == (
            rig.jobs.job_of(before),
            "42",
            "9",
            "abcdefghi",
            "build",
        )
        after = rig.jobs.run(["sh", "-c", "exit 3"], kind="service")
        assert followed.until(str(after.id), _ended).exit_code == 3
        assert followed.until(str(after.id), _ended).kind == "service"
        before.kill()
        ended = followed.until(str(before.id), _ended)
        assert (ended.exit_code, ended.oom) == (137, None)
        assert ended.ended_at is not None
        assert ended.ended_at > ended.started_at > 1.6e9


def test_a_container_of_somebody_else_is_not_told_of(rig: Rig) -> None:
    stranger = rig.client.containers.run(rig.jobs.image, ["sleep", "300"], detach=True, network_mode="none")
    try:
        with Followed(rig.socket) as followed:
            mine = rig.jobs.run(["true"])
            followed.until(str(mine.id), _ended)
            assert followed.find(str(stranger.id)) is None
    finally:
        stranger.remove(force=True)


def test_a_job_that_the_kernel_kills_for_memory_died_of_the_hosts(rig: Rig) -> None:
    eat = ["python3", "-c", "b = [bytearray(1 << 20) for _ in range(400)]"]
    with Followed(rig.socket) as followed:
        job = rig.jobs.run(eat, mem_limit="64m", memswap_limit="64m")
        assert followed.until(str(job.id), _ended).oom == "host"
        # Its removal takes nothing back.
        job.remove(force=True)
        probe = rig.jobs.run(["true"])
        followed.until(str(probe.id), _ended)
        assert followed.until(str(job.id), _ended).oom == "host"


def test_a_job_whose_program_ran_out_of_the_gpus_memory_says_so(rig: Rig) -> None:
    script = f"for n in $(seq 1000); do echo line $n of noise; done; printf '\\033[31m{OOM}\\033[0m\\n' >&2; exit 1"
    with Followed(rig.socket) as followed:
        plain = rig.jobs.run(["sh", "-c", script])
        terminal = rig.jobs.run(["sh", "-c", script], tty=True)
        passed = rig.jobs.run(["sh", "-c", script.replace("exit 1", "exit 0")])
        for job in (plain, terminal):
            seen = followed.until(str(job.id), _ended)
            assert (seen.oom, seen.exit_code) == ("gpu", 1)
            assert seen.oom_detail.startswith("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")
        assert followed.until(str(passed.id), _ended).oom is None


def test_what_an_earlier_run_of_the_container_wrote_is_not_the_later_ones(rig: Rig) -> None:
    """gitlab-runner starts the build container again: for after_script, whose end says nothing of the job's."""
    script = f"test -e /again && exit 7; touch /again; echo '{OOM}'; exit 0"
    with Followed(rig.socket) as followed:
        job = rig.jobs.run(["sh", "-c", script])
        first = followed.until(str(job.id), _ended)
        job.start()
        second = followed.until(str(job.id), lambda one: _ended(one) and one.ended_at != first.ended_at)
        assert (first.exit_code, first.oom) == (0, None)
        assert (second.exit_code, second.oom) == (0, None)
        assert second.started_at == first.started_at


def test_a_container_that_removes_itself_still_has_its_end(rig: Rig) -> None:
    with Followed(rig.socket) as followed:
        job = rig.jobs.run(["sh", "-c", "exit 5"], auto_remove=True)
        assert followed.until(str(job.id), _ended).exit_code == 5
        assert "engine" not in followed.watch.problems


def test_a_process_is_found_in_its_jobs_container_from_outside_and_from_within_a_container(rig: Rig) -> None:
    """The exporter's container has the machine's processes; where it has a cgroup namespace, paths start at its own."""
    job = rig.jobs.run(["sleep", "300"])
    job.reload()
    pid = int(job.attrs["State"]["Pid"])
    assert ContainerFinder().containers_of(pid)[0] == job.id
    for cgroupns in ("host", "private"):
        seen = rig.client.api.create_container(
            rig.jobs.image,
            ["cat", f"/proc/{pid}/cgroup"],
            user="60947:60947",
            host_config={
                **rig.client.api.create_host_config(
                    pid_mode="host", network_mode="none", cap_drop=["ALL"], read_only=True
                ),
                "CgroupnsMode": cgroupns,
            },
        )["Id"]
        try:
            rig.client.api.start(seen)
            assert rig.client.api.wait(seen)["StatusCode"] == 0
            text = rig.client.api.logs(seen).decode()
        finally:
            rig.client.api.remove_container(seen, force=True)
        assert container_ids(text)[0] == job.id, text
        if cgroupns == "private":
            assert f"/../{job.id}" in text


class Proxy:
    """Stands before an engine's socket, and cuts what goes through it."""

    def __init__(self, target: Path, path: Path) -> None:
        self.target, self.path = target, path
        self._pairs: list[socket.socket] = []
        self._server: socket.socket | None = None

    def open(self) -> None:
        """Listen, as an engine that has started does."""
        server = self._server = socket.socket(socket.AF_UNIX)
        server.bind(str(self.path))
        server.listen()
        threading.Thread(target=self._accept, args=(server,), daemon=True).start()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                client = server.accept()[0]
            except OSError:
                return
            engine = socket.socket(socket.AF_UNIX)
            engine.connect(str(self.target))
            self._pairs += [client, engine]
            for one, other in ((client, engine), (engine, client)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut every connection, and listen no more, as an engine that is stopped does."""
        if self._server is not None:
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
            self.path.unlink()
        for one in self._pairs:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._pairs.clear()
        self._server = None


@pytest.fixture
def proxy(rig: Rig, tmp_path: Path) -> Iterator[Proxy]:
    made = Proxy(rig.socket, tmp_path / "engine.sock")
    made.open()
    yield made
    made.close()


def test_what_happens_while_the_engine_cannot_be_reached_is_known_afterwards(rig: Rig, proxy: Proxy) -> None:
    runs, ends, goes = (rig.jobs.run(["sleep", "300"]) for _ in range(3))
    with Followed(proxy.path) as followed:
        for one in (runs, ends, goes):
            followed.until(str(one.id), lambda seen: not _ended(seen))
        proxy.close()
        assert wait_for(lambda: "engine" in followed.watch.problems, timeout_s=30)
        ends.kill()
        goes.kill()
        goes.wait()
        goes.remove()
        starts = rig.jobs.run(["sleep", "300"])
        fails = rig.jobs.run(["sh", "-c", f"echo '{OOM}'; exit 1"])
        fails.wait()
        proxy.open()
        assert followed.until(str(ends.id), _ended).exit_code == 137
        assert followed.until(str(goes.id), _ended).exit_code == 137
        assert not _ended(followed.until(str(starts.id), lambda _: True))
        assert followed.until(str(fails.id), _ended).oom == "gpu"
        assert not _ended(followed.until(str(runs.id), lambda _: True))
        assert not followed.watch.problems


def test_the_box_is_told_of_with_real_sizes(rig: Rig, tmp_path: Path) -> None:
    watched = BoxWatch(rig.socket, Paths(root=tmp_path))
    watched.start()
    try:
        found: Any = wait_for(lambda: watched.facts() if len(watched.facts().disks) == 2 else None, timeout_s=30)
        assert found
        assert not found.problems
        assert all(0 < one.free_bytes < one.total_bytes for one in found.disks)
        mine = {str(image.id) for image in rig.client.images.list(filters={"label": "io.gpurig.content-hash"})}
        assert bool(found.image_bytes.get("job") or found.image_bytes.get("exporter")) == bool(mine)
    finally:
        watched.stop()
