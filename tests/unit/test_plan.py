"""The plan is a pure function of facts and settings."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

from click.testing import CliRunner
from gpurig.provisioning.facts import HostFacts
from gpurig.provisioning.paths import Paths, box_id
from gpurig.provisioning.plan import selfcheck_spec
from gpurig.provisioning.plan_view import plan_document, plan_text
from gpurig.runner.commands.metrics import metrics
from standins.memory_box import two_gpus
from standins.plans import RADEON, plan_for


def test_every_gpu_is_an_entry_of_its_own_by_default() -> None:
    plan = plan_for(two_gpus())
    assert [entry.key for entry in plan.entries] == ["gpu:GPU-1", "gpu:GPU-2"]
    assert [entry.wiring.gpus for entry in plan.entries] == [
        "driver=cdi,device=nvidia.com/gpu=GPU-1",
        "driver=cdi,device=nvidia.com/gpu=GPU-2",
    ]
    assert plan.concurrent == 2
    assert "vram-24gb" in plan.entries[0].runner.tags
    assert "gpus-2" not in plan.entries[0].runner.tags


def test_layout_box_is_one_entry_that_owns_all_of_a_vendor() -> None:
    plan = plan_for(HostFacts(gpus=(*two_gpus().gpus, RADEON)), layout="box")
    assert [(entry.key, entry.image, entry.limit) for entry in plan.entries] == [
        ("box:cuda", "job-cuda:1", 1),
        ("box:rocm", "job-rocm:1", 1),
    ]
    assert "gpus-2" in plan.entries[0].runner.tags
    assert plan.entries[0].wiring.device_ids == ("nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-2")


def test_a_box_without_gpu_is_one_cpu_entry() -> None:
    plan = plan_for(HostFacts(), concurrent=3)
    assert [(entry.key, entry.runner.tags, entry.limit) for entry in plan.entries] == [("cpu", ("gpurig", "cpu"), 3)]
    assert plan.concurrent == 3


def test_a_cpu_runner_can_be_asked_for_where_gpus_are() -> None:
    assert [entry.key for entry in plan_for(two_gpus(), cpu=True).entries] == ["cpu"]


def test_the_exporter_sees_every_gpu_and_is_published_where_asked() -> None:
    plan = plan_for(HostFacts(gpus=(*two_gpus().gpus, RADEON)), metrics_listen="[::1]:9999")
    exporter = plan.containers[-1]
    assert exporter.wiring.device_ids == ("nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-2")
    assert exporter.wiring.devices == ("/dev/kfd", "/dev/dri/renderD128")
    assert (exporter.ports[0].address, exporter.ports[0].host) == ("::1", 9999)
    assert exporter.cap_drop == ("ALL",)
    assert exporter.read_only


def test_without_metrics_there_is_neither_exporter_nor_watcher() -> None:
    plan = plan_for(HostFacts(), metrics_listen="off")
    assert [spec.role for spec in plan.containers] == ["runner"]
    assert plan.exporter_image == ""
    assert plan.usage is None
    assert [mount.target for mount in selfcheck_spec(plan, plan.entries[0]).mounts] == ["/models"]


def test_the_watcher_reaches_the_engine_and_answers_nobody() -> None:
    watcher = plan_for(HostFacts()).containers[-2]
    assert (watcher.name, watcher.role, watcher.network) == ("gpurig-watcher", "watcher", "none")
    assert (watcher.ports, watcher.wiring.device_ids, watcher.host_pids) == ((), (), False)
    assert (watcher.cap_drop, watcher.cap_add, watcher.read_only) == (("ALL",), ("DAC_OVERRIDE",), True)
    assert {mount.target: mount.read_only for mount in watcher.mounts} == {
        "/run/gpurig/box": False,
        "/var/run/docker.sock": False,
        "/box/etc/gpurig": True,
        "/box/var/lib/gpurig/models": True,
    }


def test_the_exporter_sees_the_machines_processes_and_what_the_watcher_writes_and_no_file_of_the_runners() -> None:
    plan = plan_for(HostFacts(), name="second")
    exporter = plan.containers[-1]
    assert exporter.host_pids
    data = "/var/lib/second/metrics"
    assert {mount.source: (mount.target, mount.read_only) for mount in exporter.mounts} == {
        f"{data}/box": ("/run/gpurig/box", True),
        f"{data}/accounts": ("/run/gpurig/accounts", False),
        f"{data}/usage": ("/run/gpurig/usage", False),
    }
    assert not any(str(plan.paths.config_dir) in mount.source for mount in exporter.mounts)


def test_what_watcher_and_exporter_are_told_is_where_it_is_mounted() -> None:
    _, watcher, exporter = plan_for(HostFacts()).containers
    for spec in (watcher, exporter):
        # The options exist, with these values; `--help` ends it there.
        done = CliRunner().invoke(metrics, [*spec.command[1:], "--help"])
        assert done.exit_code == 0, done.output
    told = dict(pairwise(exporter.command))
    assert told["--box-facts"] == dict(pairwise(watcher.command))["--output"]
    targets = {mount.target for mount in exporter.mounts}
    assert {told["--state-dir"], told["--usage-dir"], str(Path(told["--box-facts"]).parent)} == targets


def test_two_instances_share_no_name_and_no_folder() -> None:
    one, two = plan_for(HostFacts()), plan_for(HostFacts(), name="second")
    assert not {spec.name for spec in one.containers} & {spec.name for spec in two.containers}
    assert one.paths.config_dir != two.paths.config_dir
    assert one.paths.data_dir != two.paths.data_dir


def test_the_same_facts_and_settings_give_the_same_plan_and_digests() -> None:
    one, two = plan_for(two_gpus()), plan_for(two_gpus())
    assert one == two
    assert [entry.runner.digest() for entry in one.entries] == [entry.runner.digest() for entry in two.entries]


def test_what_gitlab_knows_of_a_runner_decides_whether_it_is_another_one() -> None:
    base = plan_for(HostFacts()).entries[0].runner.digest()
    for given in ({"extra_tags": ("lab",)}, {"run_untagged": True}, {"target": "43"}, {"url": "https://other.example"}):
        assert plan_for(HostFacts(), **given).entries[0].runner.digest() != base
    for given in ({"concurrent": 2}, {"runner_image": "other:1"}, {"metrics_listen": "off"}):
        assert plan_for(HostFacts(), **given).entries[0].runner.digest() == base


def test_a_moved_tag_makes_another_container() -> None:
    spec = plan_for(HostFacts()).containers[0]
    assert spec.digest("sha256:1") != spec.digest("sha256:2")


def test_only_what_takes_no_connection_reaches_the_engine() -> None:
    plan = plan_for(two_gpus())
    with_socket = [spec.role for spec in plan.containers if any("docker.sock" in m.source for m in spec.mounts)]
    assert with_socket == ["runner", "watcher"]
    assert not any(spec.ports for spec in plan.containers if spec.role in with_socket)
    assert not any("docker.sock" in mount.source for mount in selfcheck_spec(plan, plan.entries[0]).mounts)


def test_the_view_fits_80_columns_and_is_json() -> None:
    plan = plan_for(two_gpus())
    plain, config = plan_text(plan).split("tokens left out:")
    assert all(len(line) <= 80 for line in plain.splitlines())
    assert "token" not in config
    document = json.loads(json.dumps(plan_document(plan)))
    assert [one["wiring"] for one in document["runners"]] == [entry.wiring.config_keys() for entry in plan.entries]


def test_a_box_is_told_from_every_other_without_giving_its_machine_id_away() -> None:
    machine = "0123456789abcdef0123456789abcdef"
    here = box_id(machine, Paths())
    assert here == box_id(machine + "\n", Paths())
    assert here != box_id(machine, Paths(name="second"))
    assert here != box_id(machine[::-1], Paths())
    assert here not in machine
