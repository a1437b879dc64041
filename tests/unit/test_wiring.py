"""One wiring: what the engine can do decides, and config.toml and the SDK say the same."""

from __future__ import annotations

import csv

import pytest
from gpurig.common.errors import PrerequisiteError
from gpurig.provisioning.engine_facts import EngineFacts
from gpurig.provisioning.facts import DeviceNode, Gpu
from gpurig.provisioning.wiring import Wiring, join, wire
from hypothesis import given
from hypothesis import strategies as st


def nvidia(number: int, *, mig: bool = False) -> Gpu:
    return Gpu("cuda", f"GPU-{number}", "RTX 4090", f"0000:0{number}:00.0", 24 * 2**30, mig=mig)


def amd(number: int, *, nodes: bool = True) -> Gpu:
    files = (DeviceNode("/dev/kfd", 44), DeviceNode(f"/dev/dri/renderD{128 + number}", 105))
    return Gpu("rocm", f"amd-{number}", "RX 7900", f"0000:0{number}:00.0", 24 * 2**30, nodes=files if nodes else ())


def engine(*names: str, cdi: bool = True, nvidia_runtime: bool = False) -> EngineFacts:
    return EngineFacts(address="unix:///x", version="26.1", cdi=cdi, cdi_devices=names, nvidia_runtime=nvidia_runtime)


def parse_docker_gpus(text: str) -> tuple[str, list[str]]:
    """Docker's own reading of `--gpus` (docker/cli, opts/gpus.go): one CSV record of key=value."""
    driver, devices = "", []
    for field in next(csv.reader([text])):
        key, _, value = field.partition("=")
        if key == "driver":
            driver = value
        elif key == "device":
            devices = value.split(",")
        else:
            raise AssertionError(field)
    return driver, devices


def test_a_cpu_box_gets_nothing() -> None:
    assert wire([], engine()) == Wiring()
    assert Wiring().config_keys() == {}
    assert Wiring().sdk_arguments() == {}


def test_a_spec_that_knows_the_uuid_is_used_by_uuid() -> None:
    wiring = wire([nvidia(1)], engine("nvidia.com/gpu=GPU-1", "nvidia.com/gpu=0", "nvidia.com/gpu=all"))
    assert wiring.config_keys() == {"gpus": "driver=cdi,device=nvidia.com/gpu=GPU-1"}


def test_a_spec_of_numbers_is_used_by_the_place_among_all_cards_of_the_vendor() -> None:
    specs = engine("nvidia.com/gpu=0", "nvidia.com/gpu=1")
    host = [amd(0), nvidia(1), nvidia(2)]
    assert wire([nvidia(2)], specs, beside=host).device_ids == ("nvidia.com/gpu=1",)


def test_numbers_are_not_trusted_where_a_card_is_split() -> None:
    specs = engine("nvidia.com/gpu=0", "nvidia.com/gpu=1")
    with pytest.raises(PrerequisiteError, match="no CDI spec names"):
        wire([nvidia(2, mig=True)], specs, beside=[nvidia(1), nvidia(2, mig=True)])


def test_all_is_taken_only_for_all() -> None:
    specs = engine("nvidia.com/gpu=all")
    assert wire([nvidia(1)], specs).device_ids == ("nvidia.com/gpu=all",)
    with pytest.raises(PrerequisiteError):
        wire([nvidia(1)], specs, beside=[nvidia(1), nvidia(2)])


def test_an_engine_without_cdi_uses_nvidias_runtime() -> None:
    wiring = wire([nvidia(1), nvidia(2)], engine(cdi=False, nvidia_runtime=True))
    assert wiring.config_keys() == {"gpus": '"device=GPU-1,GPU-2"'}


@pytest.mark.parametrize("facts", [engine(), engine(cdi=False)])
def test_an_engine_that_cannot_hand_the_gpu_over_is_told_with_the_fix(facts: EngineFacts) -> None:
    with pytest.raises(PrerequisiteError) as caught:
        wire([nvidia(1)], facts)
    assert "nvidia-c" in caught.value.hint


def test_amd_gets_device_files_once_and_numeric_groups() -> None:
    wiring = wire([amd(0), amd(1)], engine(cdi=False))
    assert wiring.config_keys() == {
        "devices": ["/dev/kfd", "/dev/dri/renderD128", "/dev/dri/renderD129"],
        "group_add": ["44", "105"],
    }
    assert wiring.sdk_arguments()["devices"][0] == "/dev/kfd:/dev/kfd:rwm"


def test_amd_without_device_files_uses_a_cdi_spec_or_says_what_is_missing() -> None:
    assert wire([amd(0, nodes=False)], engine("amd.com/gpu=0")).gpus == "driver=cdi,device=amd.com/gpu=0"
    with pytest.raises(PrerequisiteError, match="no device file"):
        wire([amd(0, nodes=False)], engine())


def test_no_cdi_name_is_ever_in_devices() -> None:
    for gpus in ([nvidia(1)], [amd(0)], [amd(0, nodes=False)]):
        wiring = wire(gpus, engine("nvidia.com/gpu=0", "amd.com/gpu=0"))
        assert all(path.startswith("/dev/") for path in wiring.devices)


def test_joined_wirings_give_everything_once() -> None:
    specs = engine("nvidia.com/gpu=0", "nvidia.com/gpu=1")
    host = [nvidia(1), nvidia(2), amd(0)]
    joined = join([wire([gpu], specs, beside=host) for gpu in host])
    assert joined.device_ids == ("nvidia.com/gpu=0", "nvidia.com/gpu=1")
    assert joined.devices == ("/dev/kfd", "/dev/dri/renderD128")
    assert join([]) == Wiring()
    with pytest.raises(PrerequisiteError, match="mixes"):
        join([Wiring(driver="cdi", device_ids=("a",)), Wiring(device_ids=("b",))])


@given(
    driver=st.sampled_from(["", "cdi"]),
    names=st.lists(st.from_regex(r"[A-Za-z0-9./=:-]{1,40}", fullmatch=True), min_size=1, max_size=6, unique=True),
)
def test_docker_reads_back_what_was_meant_and_the_sdk_asks_for_the_same(driver: str, names: list[str]) -> None:
    wiring = Wiring(driver=driver, device_ids=tuple(names))
    assert parse_docker_gpus(wiring.gpus) == (driver, names)
    request = wiring.sdk_arguments()["device_requests"][0]
    assert (request["Driver"], request["DeviceIDs"], request["Capabilities"]) == (driver, names, [["gpu"]])
