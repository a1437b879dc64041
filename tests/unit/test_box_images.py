"""Which image `gpurig images` means: this box's, unless somebody names another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.provisioning.facts import Gpu, HostFacts, Problem
from gpurig.runner.box_images import BoxImages

ADA = Gpu("cuda", "GPU-1", "RTX 4090", "0000:01:00.0", 24 << 30, arch="sm-89", driver="580.95.05")
RDNA = Gpu("rocm", "amd-1", "RX 7900 XTX", "0000:02:00.0", 24 << 30, arch="gfx1100")


def _box(tmp_path: Path, host: HostFacts | None = None, **options) -> BoxImages:
    box = BoxImages(options, name="gpurig", root=tmp_path)
    # What the cached property would detect.
    box.__dict__["host"] = host or HostFacts()
    return box


def _names(box: BoxImages) -> list[str]:
    return [spec.name for spec in box.specs()]


@pytest.mark.parametrize(
    ("gpus", "options", "names"),
    [
        ((), {}, ["gpurig-job-cpu"]),
        ((ADA,), {}, ["gpurig-job-cuda13-sm89"]),
        ((ADA, RDNA), {}, ["gpurig-job-cuda13-sm89", "gpurig-job-rocm-gfx1100"]),
        ((ADA,), {"backend": "cpu"}, ["gpurig-job-cpu"]),
        ((ADA,), {"target": "finetune"}, ["gpurig-job-cuda13-sm89-finetune"]),
        ((ADA,), {"purpose": "saas"}, ["gpurig-job-cuda13-sm75-sm89"]),
        ((), {"purpose": "saas"}, ["gpurig-job-cuda13-sm75"]),
        ((), {"arch": "89, 75"}, ["gpurig-job-cuda13-sm75-sm89"]),
        ((ADA,), {"arch": "gfx1100"}, ["gpurig-job-rocm-gfx1100"]),
        ((), {"backend": "cuda", "arch": "all"}, ["gpurig-job-cuda13-all"]),
        ((), {"arch": "89", "cuda_major": "12"}, ["gpurig-job-cuda12-sm89"]),
    ],
)
def test_the_image_is_this_boxs_unless_somebody_names_another(tmp_path, gpus, options, names):
    assert _names(_box(tmp_path, HostFacts(gpus=gpus), **options)) == names


def test_a_broken_driver_is_never_taken_for_a_box_without_a_gpu(tmp_path):
    broken = Problem("nvml", "driver and library differ", "reboot", unusable=True)
    box = _box(tmp_path, HostFacts(problems=(broken,)))
    with pytest.raises(PrerequisiteError, match="driver and library differ") as caught:
        box.specs()
    assert "--backend cpu" in caught.value.hint
    assert _names(_box(tmp_path, HostFacts(problems=(broken,)), backend="cpu")) == ["gpurig-job-cpu"]
    assert _names(_box(tmp_path, HostFacts(problems=(broken,)), arch="89")) == ["gpurig-job-cuda13-sm89"]


@pytest.mark.parametrize(
    "options", [{"arch": "hopper"}, {"backend": "cpu", "arch": "89"}, {"backend": "rocm", "purpose": "saas"}]
)
def test_options_that_do_not_go_together_are_bad_input(tmp_path, options):
    with pytest.raises(InputError):
        _box(tmp_path, **options).specs()


def _remember(tmp_path: Path, **settings: object) -> Path:
    state = tmp_path / "etc/gpurig/state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"version": 1, "settings": settings}))
    return state


def test_what_up_was_told_counts_where_an_option_is_silent(tmp_path):
    _remember(tmp_path, base_image="mine:1", pip_index_url="https://mirror.example/simple", cpu=True)
    box = _box(tmp_path, HostFacts(gpus=(ADA,)))
    (spec,) = box.specs()
    plan = box.plan(spec)
    assert spec.backend == "cpu"
    assert plan.build_args["BASE_IMAGE"] == "mine:1"
    assert plan.build_args["PIP_INDEX_URL"] == "https://mirror.example/simple"
    other = _box(tmp_path, base_image="other:1")
    assert other.plan(other.specs()[0]).build_args["BASE_IMAGE"] == "other:1"


def test_the_toolkit_image_that_up_was_told_counts_until_an_option_names_another(tmp_path):
    _remember(tmp_path, base_image="site:1", toolkit_image="site-rocm:1")
    box = _box(tmp_path, HostFacts(gpus=(RDNA,)))
    assert box.plan(box.specs()[0]).build_args["TOOLKIT_IMAGE"] == "site-rocm:1"
    other = _box(tmp_path, HostFacts(gpus=(RDNA,)), toolkit_image="other:1")
    assert other.plan(other.specs()[0]).build_args["TOOLKIT_IMAGE"] == "other:1"


def test_a_state_that_this_user_may_not_read_is_told_and_defaults_count(tmp_path, monkeypatch):
    _remember(tmp_path, base_image="mine:1")

    def refuse(*_: object) -> str:
        raise PrerequisiteError("cannot read it")

    monkeypatch.setattr("gpurig.provisioning.disk.LocalDisk.read", refuse)
    box = _box(tmp_path)
    assert box.unread == "cannot read it"
    assert box.plan(box.specs()[0]).build_args["BASE_IMAGE"].startswith("python:3.12")


def test_the_tag_is_the_one_that_up_uses(tmp_path):
    from gpurig.provisioning.docker_engine import DockerEngine
    from gpurig.provisioning.settings import make_settings
    from gpurig.runner.world import BuiltImages

    host = HostFacts(gpus=(ADA,))
    settings = make_settings(
        {
            "url": "https://gitlab.example.com",
            "runner_type": "instance",
            "base_image": "mine:1",
            "toolkit_image": "tools:1",
            "metrics_listen": "off",
        }
    )
    of_up = BuiltImages(settings, host, DockerEngine(None, "")).tags().job
    box = _box(tmp_path, host, base_image="mine:1", toolkit_image="tools:1")
    assert box.current_tags() >= set(of_up.values())
