"""Containers on a real engine: what a spec asks for is what the container has."""

from __future__ import annotations

import io
import json
import os
import secrets
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gpurig.common.errors import PrerequisiteError
from gpurig.common.waiting import wait_for
from gpurig.provisioning.container_spec import ContainerSpec, Mount, Port
from gpurig.provisioning.docker_engine import DockerEngine
from gpurig.provisioning.engine import connect
from gpurig.provisioning.engine_facts import DEFAULT_ADDRESS
from gpurig.provisioning.facts import Gpu
from gpurig.provisioning.wiring import Wiring, wire

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.docker

MakeSpec = Callable[..., ContainerSpec]


@pytest.fixture(params=["current", "oldest"])
def adapter(request: pytest.FixtureRequest, engine: docker.DockerClient, base_image: str) -> Iterator[DockerEngine]:
    """The engine of this machine, and the oldest one beside it."""
    assert engine.ping()
    address = os.environ.get("DOCKER_HOST", DEFAULT_ADDRESS)
    if request.param == "oldest":
        address = request.getfixturevalue("legacy_address")
        base_image = request.getfixturevalue("legacy_base_image")
    client = connect(address)
    try:
        found = DockerEngine(client, address)
        assert found.image_id(base_image)
        yield found
    finally:
        client.close()


@pytest.fixture
def instance(adapter: DockerEngine) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:10]}"
    yield name
    for one in adapter.find(name):
        adapter.remove(one.id)


@pytest.fixture
def make(instance: str, base_image: str) -> MakeSpec:
    def spec(*command: str, **values: object) -> ContainerSpec:
        base = ContainerSpec(
            name=f"{instance}-runner",
            role="runner",
            instance=instance,
            image=base_image,
            command=command,
            network="none",
        )
        return replace(base, **values)  # type: ignore[arg-type]  # fields of the dataclass

    return spec


def image_id(adapter: DockerEngine, spec: ContainerSpec) -> str:
    known = adapter.image_id(spec.image)
    assert known
    return known


def test_the_real_engine_gives_its_facts(adapter: DockerEngine) -> None:
    facts = adapter.facts()
    assert facts.version == adapter.client.version()["Version"]
    assert facts.cgroup_driver in {"cgroupfs", "systemd"}
    assert facts.cdi == bool(adapter.client.info().get("CDISpecDirs"))


def test_a_containers_life(adapter: DockerEngine, make: MakeSpec, instance: str) -> None:
    spec = make("sleep", "600", restart=True, stop_signal="SIGKILL")
    digest = spec.digest(image_id(adapter, spec))
    made = adapter.create(spec, image_id(adapter, spec))
    assert [(one.name, one.status, one.spec) for one in adapter.find(instance)] == [(spec.name, "created", digest)]
    adapter.start(made)
    adapter.start(made)
    assert adapter.status(made) == "running"
    assert adapter.owner_of(spec.name) == instance
    with pytest.raises(PrerequisiteError, match="creating the container"):
        adapter.create(spec, image_id(adapter, spec))
    adapter.rename(made, f"{spec.name}-previous")
    assert adapter.owner_of(spec.name) is None
    adapter.stop(made, wait_s=1)
    assert adapter.status(made) == "exited"
    adapter.remove(made)
    adapter.remove(made)
    adapter.stop(made, wait_s=1)
    assert adapter.status(made) == "gone"
    assert adapter.find(instance) == ()


def test_stopping_asks_with_the_runners_signal_and_waits(adapter: DockerEngine, make: MakeSpec) -> None:
    script = "trap 'echo draining; exit 0' QUIT; echo ready; while :; do sleep 0.1; done"
    spec = make("bash", "-c", script, stop_signal="SIGQUIT")
    made = adapter.create(spec, image_id(adapter, spec))
    adapter.start(made)
    assert wait_for(lambda: "ready" in adapter.logs(made), timeout_s=20)
    adapter.stop(made, wait_s=20)
    assert "draining" in adapter.logs(made)


def test_a_container_is_confined_as_its_spec_says(adapter: DockerEngine, make: MakeSpec, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("weights")
    spec = make(
        "bash",
        "-c",
        "grep -E 'CapEff|NoNewPrivs' /proc/self/status; cat /models/model; echo; touch /models/x || echo ro-mount; "
        "touch /x || echo ro-root; touch /tmp/x && echo tmp; df --output=size -B1 /dev/shm | tail -1; echo $WHO; id -G",
        cap_drop=("ALL",),
        security_opt=("no-new-privileges:true",),
        mounts=(Mount(str(tmp_path), "/models", read_only=True),),
        read_only=True,
        tmpfs=("/tmp",),
        shm_size=32 * 2**20,
        environment=(("WHO", "gpurig"),),
        wiring=Wiring(devices=("/dev/fuse",) if Path("/dev/fuse").exists() else (), group_add=("12345",)),
    )
    result = adapter.run(spec, image_id(adapter, spec), timeout_s=60)
    assert result.code == 0
    words = result.output.split()
    assert words[words.index("CapEff:") + 1].strip("0") == ""
    assert words[words.index("NoNewPrivs:") + 1] == "1"
    assert {"weights", "ro-mount", "ro-root", "tmp", "gpurig", "12345", str(32 * 2**20)} <= set(words)


def test_a_check_that_fails_gives_its_code_and_its_words_and_leaves_nothing(
    adapter: DockerEngine, make: MakeSpec, instance: str
) -> None:
    spec = make("bash", "-c", "echo gpurig-job: no >&2; exit 4", role="selfcheck")
    result = adapter.run(spec, image_id(adapter, spec), timeout_s=60)
    assert (result.code, result.output) == (4, "gpurig-job: no\n")
    assert adapter.find(instance) == ()


def test_a_check_that_hangs_is_ended_and_leaves_nothing(adapter: DockerEngine, make: MakeSpec, instance: str) -> None:
    spec = make("sleep", "600", role="selfcheck")
    with pytest.raises(PrerequisiteError, match="did not finish within 1 s"):
        adapter.run(spec, image_id(adapter, spec), timeout_s=1)
    assert adapter.find(instance) == ()


def test_a_check_that_a_killed_run_left_is_replaced(adapter: DockerEngine, make: MakeSpec) -> None:
    spec = make("true", role="selfcheck")
    adapter.create(spec, image_id(adapter, spec))
    assert adapter.run(spec, image_id(adapter, spec), timeout_s=60).code == 0


def test_a_port_that_is_taken_is_told_by_name(adapter: DockerEngine, make: MakeSpec) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = Port(9476, "127.0.0.1", taken.getsockname()[1])
        spec = make("sleep", "600", network="bridge", ports=(port,))
        made = adapter.create(spec, image_id(adapter, spec))
        with pytest.raises(PrerequisiteError, match=str(port.host)) as caught:
            adapter.start(made)
    assert "--metrics-listen" in caught.value.hint


def test_published_addresses_are_read_back(adapter: DockerEngine, make: MakeSpec, instance: str) -> None:
    spec = make("sleep", "600", network="bridge", ports=(Port(9476, "127.0.0.1", 59476),))
    adapter.create(spec, image_id(adapter, spec))
    assert adapter.find(instance)[0].ports == ("127.0.0.1:59476",)


def test_an_image_is_kept_while_a_container_or_another_instance_needs_it(
    adapter: DockerEngine, make: MakeSpec, base_image: str
) -> None:
    name, other = f"gpurig-test-uses-{secrets.token_hex(4)}:1", f"gpurig-test-uses-{secrets.token_hex(4)}:1"
    # An image of its own, so that no other container is made from it.
    recipe = f"FROM {base_image}\nLABEL test={name}\n".encode()
    adapter.client.images.build(fileobj=io.BytesIO(recipe), tag=name, rm=True)
    image = adapter.client.images.get(name)
    image.tag(other)
    try:
        assert adapter.image_users(name) == frozenset()
        adapter.use_image(name, "aaaaaaaa")
        adapter.use_image(name, "bbbbbbbb")
        adapter.use_image(name, "bbbbbbbb")
        adapter.use_image(other, "cccccccc")
        assert adapter.image_users(name) == {"aaaaaaaa", "bbbbbbbb"}
        assert adapter.image_users(other) == {"cccccccc"}
        adapter.release_image(name, "aaaaaaaa")
        adapter.release_image(name, "aaaaaaaa")
        assert adapter.image_users(name) == {"bbbbbbbb"}
        container = adapter.create(replace(make("true"), image=name), str(image.id))
        # It has other names, and the engine alone would forget this one.
        assert not adapter.remove_image(name)
        adapter.remove(container)
        assert adapter.remove_image(name)
        assert adapter.image_id(name) is None
        assert not adapter.remove_image(name)
        assert adapter.image_users(name) == frozenset()
    finally:
        for tag in adapter.client.images.get(str(image.id)).tags:
            adapter.client.images.remove(tag, force=True)


def test_an_image_that_nobody_has_is_told(adapter: DockerEngine) -> None:
    name = "registry.invalid/nobody/has-this:1"
    assert adapter.image_id(name) is None
    with pytest.raises(PrerequisiteError, match="pulling the image") as caught:
        adapter.pull(name)
    assert caught.value.hint


def test_jobs_are_seen_by_gitlab_runners_labels_and_never_taken_for_our_own(
    adapter: DockerEngine, make: MakeSpec, instance: str
) -> None:
    prefix = "com.gitlab.gitlab-runner"
    labels = {"type": "build", "job.id": "7", "job.url": "https://x/7", "project.id": "3", "runner.id": "abcdefghi"}
    spec = make(
        "sleep", "600", role="job", labels=(*((f"{prefix}.{k}", v) for k, v in labels.items()), ("gpurig.entry", "cpu"))
    )
    made = adapter.create(spec, image_id(adapter, spec))
    try:
        adapter.start(made)
        jobs = adapter.jobs(instance)
        assert [(job.job_id, job.project_id, job.runner, job.entry) for job in jobs] == [("7", "3", "abcdefghi", "cpu")]
        assert adapter.find(instance) == ()
    finally:
        adapter.remove(made)


def test_caches_of_a_runner_are_removed_with_it_and_no_others(adapter: DockerEngine) -> None:
    engine = adapter.client
    mark = uuid.uuid4().hex[:9]
    managed = "com.gitlab.gitlab-runner.managed"
    of_runner = "com.gitlab.gitlab-runner.runner.id"
    mine = engine.volumes.create(f"runner-{mark}-cache", labels={managed: "true", of_runner: mark})
    other = engine.volumes.create(f"runner-{mark}-other", labels={managed: "true", of_runner: "somebody"})
    try:
        assert adapter.remove_volumes([f"glrt-{mark}rest"]) == 1
        assert [one.name for one in engine.volumes.list() if mark in str(one.name)] == [other.name]
        assert adapter.remove_volumes([f"glrt-{mark}rest"]) == 0
    finally:
        other.remove(force=True)
    assert mine.id


def test_a_wired_gpu_is_in_the_container_or_refused_where_the_engine_has_no_way(
    adapter: DockerEngine, make: MakeSpec, instance: str
) -> None:
    gpu = Gpu("cuda", f"GPU-{instance}", "RTX 4090", "0000:01:00.0", 24 * 2**30)
    folders = [Path(str(one)) for one in adapter.client.info().get("CDISpecDirs") or []]
    if not folders:
        with pytest.raises(PrerequisiteError, match="cannot give NVIDIA GPUs"):
            wire([gpu], replace(adapter.facts(), nvidia_runtime=False))
        return
    if not os.access(folders[0], os.W_OK):
        pytest.skip(f"{folders[0]}, where the engine looks for CDI specs, cannot be written")
    # A file of our own: a real card's spec on this machine stays what it is.
    spec_file = folders[0] / f"{instance}.json"
    spec_file.write_text(
        json.dumps(
            {
                "cdiVersion": "0.5.0",
                "kind": "nvidia.com/gpu",
                "devices": [
                    {
                        "name": gpu.uuid,
                        "containerEdits": {
                            "env": [f"GPURIG_SEES={gpu.uuid}"],
                            "deviceNodes": [{"path": "/dev/gpurig-fake", "type": "c", "major": 1, "minor": 3}],
                        },
                    }
                ],
            }
        )
    )
    try:
        facts = adapter.facts()
        wiring = wire([gpu], facts)
        assert wiring.gpus == f"driver=cdi,device=nvidia.com/gpu={gpu.uuid}"
        spec = make("bash", "-c", "echo $GPURIG_SEES; test -c /dev/gpurig-fake && echo node", wiring=wiring)
        result = adapter.run(spec, image_id(adapter, spec), timeout_s=60)
    finally:
        spec_file.unlink()
    assert result.output.split() == [gpu.uuid, "node"]
