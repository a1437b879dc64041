"""A container on a real engine sees the GPU that it was given, as detection on the host saw it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pynvml
import pytest
from gpurig.provisioning.detect import detect
from gpurig.provisioning.engine_facts import EngineFacts
from gpurig.provisioning.facts import Gpu
from gpurig.provisioning.wiring import wire
from standins import machines
from standins.missing import missing
from standins.nvml import FakeNvml, write_cdi_spec

if TYPE_CHECKING:
    import docker

CDI_FOLDER = Path("/etc/cdi")
_REPOSITORY = Path(__file__).parents[2]
_PROGRAM = """
import dataclasses, json, os
from gpurig.provisioning.detect import detect
facts = detect()
print(json.dumps({"gpus": [dataclasses.asdict(gpu) for gpu in facts.gpus], "nodes": sorted(
    name for name in os.listdir("/dev") if name.startswith("nvidia"))}))
"""
MACHINE = machines.load("rtx-5080-and-4090-r580")

pytestmark = pytest.mark.docker


@pytest.fixture
def fake_box(engine: docker.DockerClient, fake_nvml: FakeNvml, tmp_path: Path) -> Iterator[EngineFacts]:
    """The engine's facts on a box with an RTX 5080 and an RTX 4090, for which a CDI spec is there."""
    if str(CDI_FOLDER) not in (engine.info().get("CDISpecDirs") or []):
        missing(f"this engine reads no CDI specs from {CDI_FOLDER}", "GPURIG_REQUIRE_DOCKER")
    assert MACHINE.nvml is not None
    spec = CDI_FOLDER / f"gpurig-test-{uuid.uuid4().hex}.json"
    try:
        CDI_FOLDER.mkdir(exist_ok=True)
        names = write_cdi_spec(spec, fake_nvml, MACHINE.nvml, tmp_path / "visible.txt")
    except PermissionError:
        missing(f"this user may not write to {CDI_FOLDER}", "GPURIG_REQUIRE_DOCKER")
    yield EngineFacts(address="", version=engine.version()["Version"], cdi=True, cdi_devices=tuple(names))
    spec.unlink()


def run_in_container(engine: docker.DockerClient, image: str, arguments: dict[str, Any]) -> dict[str, Any]:
    mounts = {
        str(_REPOSITORY / "provisioning" / "gpurig" / "provisioning"): "/code/gpurig/provisioning",
        str(_REPOSITORY / "common" / "gpurig" / "common"): "/code/gpurig/common",
        str(pynvml.__file__): "/code/pynvml.py",
    }
    output = engine.containers.run(
        image,
        ["python3", "-B", "-c", _PROGRAM],
        environment={"PYTHONPATH": "/code"},
        volumes={source: {"bind": target, "mode": "ro"} for source, target in mounts.items()},
        network_mode="none",
        remove=True,
        **arguments,
    )
    answer: dict[str, Any] = json.loads(output)
    return answer


@pytest.mark.parametrize("number", [0, 1])
def test_a_container_sees_the_one_gpu_that_it_was_given(
    number: int, engine: docker.DockerClient, base_image: str, fake_box: EngineFacts, tmp_path: Path
) -> None:
    host = detect(root=tmp_path, nvml=MACHINE.source()).gpus
    seen = run_in_container(engine, base_image, wire([host[number]], fake_box, beside=host).sdk_arguments())
    (gpu,) = (Gpu(**{**gpu, "nodes": ()}) for gpu in seen["gpus"])
    # Its number is the container's own; everything else is the host's.
    assert gpu == Gpu(**{**vars(host[number]), "index": "0"})
    assert seen["nodes"] == [f"nvidia{number}"]


def test_a_container_that_was_given_no_gpu_sees_none(
    engine: docker.DockerClient, base_image: str, fake_box: EngineFacts
) -> None:
    seen = run_in_container(engine, base_image, wire([], fake_box).sdk_arguments())
    assert seen == {"gpus": [], "nodes": []}
