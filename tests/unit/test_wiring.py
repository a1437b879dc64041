"""One wiring: what the engine can do decides, and config.toml and the SDK say the same."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest
import tomli_w
from docker.types import HostConfig
from gpurig.common.errors import PrerequisiteError
from gpurig.provisioning.container_spec import ContainerSpec
from gpurig.provisioning.engine_facts import EngineFacts
from gpurig.provisioning.facts import DeviceNode, Gpu
from gpurig.provisioning.wiring import Wiring, join, wire
from hypothesis import given
from hypothesis import strategies as st
from standins.runner.devices import device_mapping, device_requests


def nvidia(number: int, index: str = "", *, mig: bool = False) -> Gpu:
    return Gpu("cuda", f"GPU-{number}", "RTX 4090", f"0000:0{number}:00.0", 24 * 2**30, mig=mig, index=index)


def amd(number: int, *, nodes: bool = True) -> Gpu:
    files = (DeviceNode("/dev/kfd", 44), DeviceNode(f"/dev/dri/renderD{128 + number}", 105))
    return Gpu("rocm", f"amd-{number}", "RX 7900", f"0000:0{number}:00.0", 24 * 2**30, nodes=files if nodes else ())


def engine(*names: str, cdi: bool = True, nvidia_runtime: bool = False) -> EngineFacts:
    return EngineFacts(address="unix:///x", version="26.1", cdi=cdi, cdi_devices=names, nvidia_runtime=nvidia_runtime)


def test_a_cpu_box_gets_nothing() -> None:
    assert wire([], engine()) == Wiring()
    assert Wiring().config_keys() == {}
    assert Wiring().sdk_arguments() == {}


def test_a_spec_that_knows_the_uuid_is_used_by_uuid() -> None:
    wiring = wire([nvidia(1)], engine("nvidia.com/gpu=GPU-1", "nvidia.com/gpu=0", "nvidia.com/gpu=all"))
    assert wiring.config_keys() == {"gpus": "driver=cdi,device=nvidia.com/gpu=GPU-1"}


def test_a_spec_of_numbers_is_used_by_nvmls_number() -> None:
    specs = engine("nvidia.com/gpu=0", "nvidia.com/gpu=1")
    host = [amd(0), nvidia(1, "0"), nvidia(2, "1")]
    assert wire([nvidia(2, "1")], specs, beside=host).device_ids == ("nvidia.com/gpu=1",)


def test_a_lost_card_before_it_does_not_shift_a_cards_number() -> None:
    specs = engine("nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=2")
    alone = nvidia(2, "1")
    assert wire([alone], specs, beside=[alone]).device_ids == ("nvidia.com/gpu=1",)


def test_a_mig_part_is_named_by_card_and_part_and_never_by_its_card() -> None:
    part = nvidia(2, "0:1", mig=True)
    specs = engine("nvidia.com/gpu=0", "nvidia.com/gpu=0:0", "nvidia.com/gpu=0:1", "nvidia.com/gpu=all")
    assert wire([part], specs, beside=[nvidia(1, "0:0", mig=True), part]).device_ids == ("nvidia.com/gpu=0:1",)
    with pytest.raises(PrerequisiteError, match="no CDI spec names"):
        wire([part], engine("nvidia.com/gpu=0", "nvidia.com/gpu=1"), beside=[part])


def test_a_card_without_a_number_is_not_guessed() -> None:
    with pytest.raises(PrerequisiteError, match="no CDI spec names"):
        wire([nvidia(1)], engine("nvidia.com/gpu=0"))


def test_all_is_taken_only_for_all_and_only_where_nothing_else_is_named() -> None:
    specs = engine("nvidia.com/gpu=all")
    assert wire([nvidia(1, "0")], specs).device_ids == ("nvidia.com/gpu=all",)
    with pytest.raises(PrerequisiteError):
        wire([nvidia(1, "0")], specs, beside=[nvidia(1, "0"), nvidia(2, "1")])
    with pytest.raises(PrerequisiteError):
        wire([nvidia(1, "0")], engine("nvidia.com/gpu=all", "nvidia.com/gpu=GPU-of-the-past"))


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


def test_amds_cdi_numbers_are_places_in_pci_order_among_amds_gpus_and_not_kfds_numbers() -> None:
    igpu, card = replace(amd(0, nodes=False), index="1"), replace(amd(1, nodes=False), index="2")
    host = [nvidia(0, "0"), igpu, card]
    specs = engine("amd.com/gpu=0", "amd.com/gpu=1", "amd.com/gpu=all", "nvidia.com/gpu=0")
    assert wire([card], specs, beside=host).device_ids == ("amd.com/gpu=1",)


def test_a_spec_that_counts_other_amd_gpus_than_were_found_is_not_used() -> None:
    card = replace(amd(1, nodes=False), index="2")
    with pytest.raises(PrerequisiteError, match="no device file"):
        wire([card], engine("amd.com/gpu=0", "amd.com/gpu=1"), beside=[card])


def test_no_cdi_name_is_ever_in_devices() -> None:
    for gpus in ([nvidia(1, "0")], [amd(0)], [amd(0, nodes=False)]):
        wiring = wire(gpus, engine("nvidia.com/gpu=0", "amd.com/gpu=0"))
        assert all(path.startswith("/dev/") for path in wiring.devices)


def test_joined_wirings_give_everything_once() -> None:
    specs = engine("nvidia.com/gpu=0", "nvidia.com/gpu=1")
    host = [nvidia(1, "0"), nvidia(2, "1"), amd(0)]
    joined = join([wire([gpu], specs, beside=host) for gpu in host])
    assert joined.device_ids == ("nvidia.com/gpu=0", "nvidia.com/gpu=1")
    assert joined.devices == ("/dev/kfd", "/dev/dri/renderD128")
    assert join([]) == Wiring()
    with pytest.raises(PrerequisiteError, match="mixes"):
        join([Wiring(driver="cdi", device_ids=("a",)), Wiring(device_ids=("b",))])


def test_a_jobs_services_get_the_jobs_gpus_and_a_cpu_boxs_none() -> None:
    by_cdi = wire([nvidia(1), nvidia(2)], engine("nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-2"))
    assert by_cdi.service_config_keys() == {
        "service_gpus": 'driver=cdi,"device=nvidia.com/gpu=GPU-1,nvidia.com/gpu=GPU-2"'
    }
    by_hook = wire([nvidia(1)], engine(cdi=False, nvidia_runtime=True))
    assert by_hook.service_config_keys() == {"service_gpus": "device=GPU-1"}
    devices = ["/dev/kfd", "/dev/dri/renderD128"]
    assert wire([amd(0)], engine(cdi=False)).service_config_keys() == {"services_devices": {"**/*": devices}}
    assert Wiring().service_config_keys() == {}


IDS = st.lists(st.from_regex(r"[A-Za-z0-9./=:-]{1,40}", fullmatch=True), max_size=6, unique=True).map(tuple)
NODES = st.lists(st.from_regex(r"/dev/[a-z]{1,8}(/[a-zA-Z0-9]{1,12})?", fullmatch=True), max_size=4, unique=True)
WIRINGS = st.builds(
    Wiring,
    driver=st.sampled_from(["", "cdi"]),
    device_ids=IDS,
    devices=NODES.map(tuple),
    group_add=st.lists(st.integers(0, 70000).map(str), max_size=3, unique=True).map(tuple),
)


@given(wiring=WIRINGS)
def test_config_toml_the_sdk_and_the_exporter_ask_the_engine_for_the_same(wiring: Wiring) -> None:
    toml = tomllib.loads(tomli_w.dumps(wiring.config_keys()))
    job = {
        "DeviceRequests": device_requests(toml.get("gpus", "")),
        "Devices": [device_mapping(path) for path in toml.get("devices", [])],
        "GroupAdd": toml.get("group_add", []),
    }
    of_services = tomllib.loads(tomli_w.dumps(wiring.service_config_keys()))
    paths = [path for each in of_services.get("services_devices", {}).values() for path in each]
    assert device_requests(of_services.get("service_gpus", "")) == job["DeviceRequests"]
    assert [device_mapping(path) for path in paths] == job["Devices"]
    spec = ContainerSpec(name="x", role="exporter", instance="i", image="image", wiring=wiring)
    for arguments in (wiring.sdk_arguments(), spec.sdk_arguments("sha256:0")):
        names = {"device_requests", "devices", "group_add"}
        host = HostConfig(version="1.41", **{key: arguments[key] for key in names & set(arguments)})
        assert {key: host.get(key) or [] for key in job} == {key: value or [] for key, value in job.items()}


@given(wiring=WIRINGS.filter(lambda wiring: wiring.device_ids))
def test_docker_reads_back_the_ids_that_were_meant(wiring: Wiring) -> None:
    (request,) = device_requests(wiring.gpus)
    wanted = {"Driver": wiring.driver, "DeviceIDs": list(wiring.device_ids), "Count": 0, "Capabilities": [["gpu"]]}
    assert request == {**wanted, "Options": {}}


CARDS = st.lists(st.sampled_from(["fine", "lost", "refused"]), min_size=1, max_size=8)


@given(cards=CARDS, by_uuid=st.booleans())
def test_whatever_card_is_lost_or_refused_the_others_are_wired_by_their_own_name(
    cards: list[str], *, by_uuid: bool
) -> None:
    """NVML counts a lost card, and detection lists neither it nor, among the GPUs, a refused one."""
    numbered = [(nvidia(place, str(place)), kind) for place, kind in enumerate(cards)]
    specs = engine(*(f"nvidia.com/gpu={gpu.uuid if by_uuid else gpu.index}" for gpu, _ in numbered))
    found = [gpu for gpu, kind in numbered if kind != "lost"]
    for gpu, kind in numbered:
        if kind == "fine":
            wanted = gpu.uuid if by_uuid else gpu.index
            assert wire([gpu], specs, beside=found).device_ids == (f"nvidia.com/gpu={wanted}",)
