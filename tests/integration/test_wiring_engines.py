"""One wiring on real engines, new and old: containers and jobs see the GPUs of their entry as the host saw them.

The cards are fake, and what lies between them and `gpurig detect` is real: the engine, its reading of the CDI spec, its
call of NVIDIA's hook, device files and groups, the binding of NVML.
"""

from __future__ import annotations

import json
import os
import stat
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gpurig.provisioning.container_spec import ContainerSpec
from gpurig.provisioning.docker_engine import DockerEngine
from gpurig.provisioning.engine import engine_facts
from gpurig.provisioning.engine_facts import DEFAULT_ADDRESS, EngineFacts
from gpurig.provisioning.facts import DeviceNode, Gpu, HostFacts
from gpurig.provisioning.plan import Plan
from standins import machines, wired_box
from standins.gitlab import GitLab
from standins.missing import missing
from standins.nvml import FakeNvml, write_cdi_spec
from standins.nvml.hook import write_hook
from standins.own_engine import copy_image, dockerd_of, own_engine

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.docker

CDI_FOLDER = Path("/etc/cdi")
TWO_CARDS = "rtx-5080-and-4090-r580"
MIG = "h100-mig-r590"
INSTINCTS = "mi300a-x4-spx"
# Numbers that no image's group has.
KFD_GID, RENDER_GID = 20044, 20105


@dataclass(frozen=True)
class Rig:
    """An engine, where it listens, and the folder of what stands for NVIDIA's hook."""

    client: docker.DockerClient
    address: str
    hook: Path | None = None


@pytest.fixture
def current(engine: docker.DockerClient) -> Rig:
    return Rig(engine, os.environ.get("DOCKER_HOST", DEFAULT_ADDRESS))


@pytest.fixture
def legacy(legacy_engine: docker.DockerClient, legacy_address: str, legacy_base_image: str) -> Rig:
    assert legacy_base_image
    return Rig(legacy_engine, legacy_address)


@pytest.fixture
def cdi_spec(engine: docker.DockerClient) -> Iterator[Path]:
    """A name for a spec of the test's own, in a folder that the engine reads."""
    if str(CDI_FOLDER) not in (engine.info().get("CDISpecDirs") or []) or not os.access(CDI_FOLDER, os.W_OK):
        missing(
            f"this engine reads no CDI specs from {CDI_FOLDER}, or this user may not write there",
            "GPURIG_REQUIRE_DOCKER",
        )
    path = CDI_FOLDER / f"gpurig-test-{uuid.uuid4().hex}.json"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture(scope="module", params=["without CDI", "with CDI and no spec", "oldest"])
def hooked(
    request: pytest.FixtureRequest,
    engine: docker.DockerClient,
    base_image: str,
    nvml_library: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Rig]:
    """An engine that was started where NVIDIA's hook, or what stands for it, is on the PATH; the box has two cards."""
    tmp_path = tmp_path_factory.mktemp("hooked")
    folder = write_hook(tmp_path / "hook", nvml_library, _nvml(TWO_CARDS))
    settings: dict[str, Any] = {}
    if request.param == "oldest":
        request.getfixturevalue("legacy_engine")
        dockerd = dockerd_of(request.getfixturevalue("legacy_address"))
    else:
        dockerd = dockerd_of(os.environ.get("DOCKER_HOST", DEFAULT_ADDRESS))
        if request.param == "with CDI and no spec":
            (tmp_path / "cdi").mkdir()
            settings = {"features": {"cdi": True}, "cdi-spec-dirs": [str(tmp_path / "cdi")]}
    with own_engine(dockerd, path_first=folder, settings=settings) as (client, address):
        copy_image(engine, client, base_image)
        yield Rig(client, address, hook=folder)


@pytest.fixture
def amd_nodes() -> Iterator[None]:
    """Device files as AMD cards have them: root's and two groups', nobody else's."""
    minors = (128, 136, 144, 152)
    nodes = {Path("/dev/kfd"): KFD_GID} | {Path(f"/dev/dri/renderD{minor}"): RENDER_GID for minor in minors}
    if os.geteuid() != 0 or any(path.exists() for path in nodes):
        missing("device files for a fake AMD card need root, and a machine without a real one", "GPURIG_REQUIRE_DOCKER")
    had_dri = Path("/dev/dri").exists()
    Path("/dev/dri").mkdir(exist_ok=True)
    # FUSE's device: containers may not open it unless they are given it, which they may with the null device.
    real = Path("/dev/fuse") if Path("/dev/fuse").exists() else Path("/dev/null")
    for path, gid in nodes.items():
        os.mknod(path, stat.S_IFCHR | 0o660, real.stat().st_rdev)
        path.chmod(0o660)
        os.chown(path, 0, gid)
    yield
    for path in nodes:
        path.unlink()
    if not had_dri:
        Path("/dev/dri").rmdir()


def _nvml(name: str) -> Mapping[str, Any]:
    nvml = machines.load(name).nvml
    assert nvml is not None
    return nvml


def _facts(document: Mapping[str, Any]) -> HostFacts:
    """The facts behind what `gpurig detect --json` printed."""
    names = {field.name for field in fields(Gpu)}
    gpus = tuple(
        Gpu(**{**{key: gpu[key] for key in names}, "nodes": tuple(DeviceNode(**node) for node in gpu["nodes"])})
        for gpu in document["gpus"]
    )
    return HostFacts(gpus=gpus)


def _usable(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The GPUs of a `detect --json`, without the number, which is the container's own.

    sysfs shows a container every AMD card, so those count whose device files are there.
    """
    return [
        {key: value for key, value in gpu.items() if key != "index" or gpu["backend"] == "rocm"}
        for gpu in document["gpus"]
        if all(node["gid"] is not None for node in gpu["nodes"])
    ]


def _prove(rig: Rig, plan: Plan, seen: Mapping[str, Any], gitlab: GitLab, folder: Path) -> None:
    """A container by the SDK, a job and its service by config.toml and the exporter see what the host saw of theirs."""
    (image,) = plan.job_images
    host = {gpu["uuid"]: gpu for gpu in _usable(seen)}
    text = wired_box.config_text(plan, gitlab)
    wired_box.make_metrics_folders(plan)
    with wired_box.runner_process(rig.client, rig.address, folder / "runner", text):
        for number, entry in enumerate(plan.entries):
            expected = [host[one] for one in entry.gpus]
            by_sdk = rig.client.containers.run(
                image, ["sh", "-c", _QUIET], network_mode="none", remove=True, **entry.wiring.sdk_arguments()
            )
            assert _usable(json.loads(by_sdk)) == expected, "by the SDK"
            job = wired_box.run_job(gitlab, [_QUIET], tag=f"entry-{number}")
            assert job.status == "success", job.log
            assert _usable(wired_box.json_in(job.log)) == expected, "by config.toml"
        # Of the last entry, whose cards are not the first that a wrong setting would give.
        assert _usable(_seen_by_service(image, gitlab, f"entry-{number}")) == expected, "a service by config.toml"
    exporter = plan.containers[-1]
    assert exporter.role == "exporter"
    one_shot = replace(
        exporter,
        name=f"gpurig-test-{uuid.uuid4().hex[:8]}",
        role="selfcheck",
        instance=f"test-{uuid.uuid4().hex[:8]}",
        command=("sh", "-c", _QUIET),
        ports=(),
        network="none",
        restart=False,
    )
    assert _usable(json.loads(_run(rig, one_shot))) == list(host.values()), "the exporter"


def _seen_by_service(image: str, gitlab: GitLab, tag: str) -> dict[str, Any]:
    """What a job's service detects: they have a volume in common."""
    path = f"/cache/{uuid.uuid4().hex}"
    # As root: a service has no groups but its user's own, and AMD's device files are a group's.
    command = ["sh", "-c", f"({_QUIET}) > {path}.new; mv {path}.new {path}"]
    service = {"name": image, "alias": "seer", "command": command, "docker": {"user": "root"}}
    script = [f"until [ -e {path} ]; do sleep 0.1; done", f"cat {path}"]
    job = wired_box.run_job(gitlab, script, tag=tag, services=[service])
    assert job.status == "success", job.log
    return wired_box.json_in(job.log)


# Exit code 4 says that a card is there which the container cannot use: the other entries' AMD cards.
_QUIET = f"{' '.join(wired_box.DETECT)} || [ $? = 4 ]"


def _run(rig: Rig, spec: ContainerSpec) -> str:
    result = DockerEngine(rig.client, rig.address).run(spec, str(rig.client.images.get(spec.image).id), timeout_s=120)
    assert result.code == 0, result.output
    return result.output


def _cdi_facts(rig: Rig, names: list[str]) -> EngineFacts:
    """The engine's facts without the specs of tests that run beside this one."""
    facts = engine_facts(rig.client, rig.address)
    assert set(names) <= set(facts.cdi_devices)
    return replace(facts, cdi_devices=tuple(names))


@pytest.mark.parametrize("layout", ["gpu", "box"])
@pytest.mark.parametrize("name", [TWO_CARDS, MIG])
def test_nvidia_by_cdi(  # noqa: PLR0917 - fixtures
    name: str,
    layout: str,
    current: Rig,
    base_image: str,
    cdi_spec: Path,
    fake_nvml: FakeNvml,
    gitlab: GitLab,
    tmp_path: Path,
) -> None:
    machine = machines.load(name)
    fake_nvml.set(_nvml(name))
    seen = wired_box.seen_by_host(machine, tmp_path, fake_nvml.environment())
    facts = _cdi_facts(current, write_cdi_spec(cdi_spec, fake_nvml, _nvml(name), tmp_path / "visible.txt"))
    plan = wired_box.plan_of(
        _facts(seen), facts, wired_box.image_of(current.client, base_image, machine), layout, tmp_path
    )
    assert all(entry.wiring.driver == "cdi" for entry in plan.entries)
    assert len(plan.entries) == (1 if layout == "box" else len(seen["gpus"]))
    _prove(current, plan, seen, gitlab, tmp_path)


def test_beside_a_lost_card_the_other_is_wired_by_its_own_number(  # noqa: PLR0917 - fixtures
    current: Rig, base_image: str, cdi_spec: Path, fake_nvml: FakeNvml, gitlab: GitLab, tmp_path: Path
) -> None:
    machine, nvml = machines.load(TWO_CARDS), _nvml(TWO_CARDS)
    lost, other = nvml["gpu"]
    names = write_cdi_spec(cdi_spec, fake_nvml, nvml, tmp_path / "visible.txt", by_uuid=False)
    fake_nvml.set({**nvml, "gpu": [{**lost, "error": "* GPU_IS_LOST"}, other]})
    seen = wired_box.seen_by_host(machine, tmp_path, fake_nvml.environment())
    assert [gpu["uuid"] for gpu in seen["gpus"]] == [other["uuid"]]
    image = wired_box.image_of(current.client, base_image, machine)
    plan = wired_box.plan_of(_facts(seen), _cdi_facts(current, names), image, "gpu", tmp_path)
    assert plan.entries[0].wiring.device_ids == ("nvidia.com/gpu=1",)
    _prove(current, plan, seen, gitlab, tmp_path)


@pytest.mark.parametrize("layout", ["gpu", "box"])
def test_nvidia_by_its_hook(  # noqa: PLR0917 - fixtures
    layout: str,
    hooked: Rig,
    base_image: str,
    fake_nvml: FakeNvml,
    gitlab: GitLab,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = machines.load(TWO_CARDS)
    fake_nvml.set(_nvml(TWO_CARDS))
    seen = wired_box.seen_by_host(machine, tmp_path, fake_nvml.environment())
    monkeypatch.setenv("PATH", f"{hooked.hook}:{os.environ['PATH']}")
    facts = engine_facts(hooked.client, hooked.address)
    assert facts.nvidia_runtime
    plan = wired_box.plan_of(
        _facts(seen), facts, wired_box.image_of(hooked.client, base_image, machine), layout, tmp_path
    )
    assert {entry.wiring.driver for entry in plan.entries} == {""}
    _prove(hooked, plan, seen, gitlab, tmp_path)


@pytest.fixture(params=["current", "legacy"])
def either(request: pytest.FixtureRequest) -> Rig:
    rig: Rig = request.getfixturevalue(request.param)
    return rig


@pytest.fixture
def instincts(amd_nodes: None, tmp_path: Path) -> dict[str, Any]:
    """What detection says of a box with four cards and their device files."""
    seen = wired_box.seen_by_host(machines.load(INSTINCTS), tmp_path, os.environ)
    assert [[node["gid"] for node in gpu["nodes"]] for gpu in seen["gpus"]] == [[KFD_GID, RENDER_GID]] * 4
    return seen


@pytest.mark.parametrize("layout", ["gpu", "box"])
def test_amd_by_device_files(  # noqa: PLR0917 - fixtures
    layout: str, either: Rig, base_image: str, instincts: dict[str, Any], gitlab: GitLab, tmp_path: Path
) -> None:
    image = wired_box.image_of(either.client, base_image, machines.load(INSTINCTS))
    plan = wired_box.plan_of(_facts(instincts), engine_facts(either.client, either.address), image, layout, tmp_path)
    assert plan.entries[0].wiring.group_add == (str(KFD_GID), str(RENDER_GID))
    _prove(either, plan, instincts, gitlab, tmp_path)


def test_an_unprivileged_user_opens_amds_device_files_by_the_numeric_groups_alone(
    either: Rig, base_image: str, instincts: dict[str, Any], tmp_path: Path
) -> None:
    plan = wired_box.plan_of(
        _facts(instincts), engine_facts(either.client, either.address), base_image, "gpu", tmp_path
    )
    wiring = plan.entries[0].wiring
    program = "import os\nfor path in ('/dev/kfd', '/dev/dri/renderD128'):\n    os.close(os.open(path, os.O_RDWR))"

    def opened(wiring_arguments: Mapping[str, Any]) -> str:
        output = either.client.containers.run(
            base_image,
            ["sh", "-c", f'python3 -c "{program}" 2>&1 | tail -1'],
            user="1000:1000",
            network_mode="none",
            remove=True,
            **wiring_arguments,
        )
        return str(output.decode())

    assert opened(wiring.sdk_arguments()) == ""
    assert "Permission denied" in opened(replace(wiring, group_add=()).sdk_arguments())
    assert "No such file" in opened({})


def test_amd_by_cdi(  # noqa: PLR0917 - fixtures
    current: Rig, base_image: str, cdi_spec: Path, instincts: dict[str, Any], gitlab: GitLab, tmp_path: Path
) -> None:
    given = {str(place): [gpu] for place, gpu in enumerate(instincts["gpus"])} | {"all": instincts["gpus"]}
    devices = [
        {"name": name, "containerEdits": {"deviceNodes": [node for gpu in gpus for node in gpu["nodes"]]}}
        for name, gpus in given.items()
    ]
    cdi_spec.write_text(json.dumps({"cdiVersion": "0.5.0", "kind": "amd.com/gpu", "devices": devices}))
    facts = _cdi_facts(current, [f"amd.com/gpu={name}" for name in given])
    image = wired_box.image_of(current.client, base_image, machines.load(INSTINCTS))
    # As detection answers where it finds no device files.
    host = HostFacts(gpus=tuple(replace(gpu, nodes=()) for gpu in _facts(instincts).gpus))
    plan = wired_box.plan_of(host, facts, image, "gpu", tmp_path)
    assert [entry.wiring.device_ids for entry in plan.entries] == [(f"amd.com/gpu={place}",) for place in range(4)]
    _prove(current, plan, instincts, gitlab, tmp_path)


def test_a_box_without_a_gpu(either: Rig, base_image: str, gitlab: GitLab, tmp_path: Path) -> None:
    machine = machines.Machine("none", expect={}, nvml=None, files={}, links={})
    seen = wired_box.seen_by_host(machine, tmp_path, os.environ)
    image = wired_box.image_of(either.client, base_image, machine)
    plan = wired_box.plan_of(_facts(seen), engine_facts(either.client, either.address), image, "gpu", tmp_path)
    assert plan.entries[0].key == "cpu"
    _prove(either, plan, seen, gitlab, tmp_path)


def test_an_oldest_engine_without_nvidias_hook_is_told_with_the_fix(legacy: Rig, tmp_path: Path) -> None:
    from gpurig.common.errors import PrerequisiteError

    card = Gpu("cuda", "GPU-1", "RTX 4090", "0000:01:00.0", 24 * 2**30, index="0")
    with pytest.raises(PrerequisiteError) as caught:
        wired_box.plan_of(
            HostFacts(gpus=(card,)), engine_facts(legacy.client, legacy.address), "image", "gpu", tmp_path
        )
    assert "nvidia-ctk runtime configure" in caught.value.hint
