"""A runner entry's tags."""

from __future__ import annotations

import re

import pytest
from gpurig.provisioning.facts import Gpu
from gpurig.provisioning.tags import model_slug, tags_for
from hypothesis import given
from hypothesis import strategies as st

RTX_4090 = Gpu("cuda", "GPU-1", "NVIDIA GeForce RTX 4090", "0000:01:00.0", 24564 * 2**20, arch="sm-89")
RTX_3060 = Gpu("cuda", "GPU-2", "NVIDIA GeForce RTX 3060", "0000:02:00.0", 12288 * 2**20, arch="sm-86")


def test_a_box_without_gpus_is_tagged_cpu() -> None:
    assert tags_for([]) == ("gpurig", "cpu")


def test_a_24_gb_card_is_found_by_every_class_up_to_its_own() -> None:
    tags = tags_for([RTX_4090])
    asked = {"vram-4gb", "vram-6gb", "vram-8gb", "vram-10gb", "vram-12gb", "vram-16gb", "vram-20gb", "vram-24gb"}
    assert asked <= set(tags)
    assert "vram-32gb" not in tags
    assert {"gpurig", "gpu", "cuda", "sm-89", "rtx-4090"} <= set(tags)


def test_a_single_gpu_has_no_count() -> None:
    assert not [tag for tag in tags_for([RTX_4090]) if tag.startswith("gpus-")]


def test_an_entry_with_three_gpus_is_found_by_each_count_up_to_three() -> None:
    counts = [tag for tag in tags_for([RTX_4090] * 3) if tag.startswith("gpus-")]
    assert counts == ["gpus-1", "gpus-2", "gpus-3"]


def test_an_entry_with_different_cards_promises_only_what_each_of_them_has() -> None:
    tags = tags_for([RTX_4090, RTX_3060])
    assert "vram-12gb" in tags
    assert "vram-16gb" not in tags
    assert not {"sm-89", "sm-86", "rtx-4090", "rtx-3060"} & set(tags)


def test_a_gpu_of_unknown_size_promises_no_memory() -> None:
    unknown = Gpu("rocm", "0000:03:00.0", "", "0000:03:00.0", None, arch="gfx1100")
    assert tags_for([unknown]) == ("gpurig", "gpu", "rocm", "gfx1100")


def test_unified_memory_is_tagged() -> None:
    spark = Gpu("cuda", "GPU-3", "NVIDIA GB10", "000f:01:00.0", 127600748 * 1024, unified=True, arch="sm-121")
    assert {"unified", "vram-128gb", "gb10"} <= set(tags_for([spark]))


@pytest.mark.parametrize("count", [8, 16, 64, 100])
def test_the_largest_entry_stays_within_gitlabs_50_tags(count: int) -> None:
    many = [Gpu("rocm", str(n), "AMD Instinct MI355X", "", 288 * 2**30, arch="gfx950") for n in range(count)]
    tags = tags_for(many)
    assert len(tags) <= 50
    assert {"gpus-1", "gpus-2", "gpus-4", "gpus-8", f"gpus-{count}"} <= set(tags)
    assert f"gpus-{count + 1}" not in tags


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 3060 Laptop GPU", "rtx-3060-laptop"),
        ("NVIDIA RTX 4000 SFF Ada Generation", "rtx-4000-sff-ada"),
        ("Tesla T4", "t4"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm4-80gb"),
        ("NVIDIA H200 MIG 1g.18gb", "h200-mig-1g-18gb"),
        ("AMD Radeon RX 7900 XTX", "rx-7900-xtx"),
        ("Radeon AI PRO R9700", "ai-pro-r9700"),
        ("Orin (nvgpu)", "orin"),
        ("Graphics Device", ""),
        ("AMD Radeon Graphics", ""),
        ("", ""),
    ],
)
def test_a_model_is_tagged_by_what_people_call_it(name: str, slug: str) -> None:
    assert model_slug(name) == slug


@given(st.text(max_size=40))
def test_no_name_makes_a_tag_that_yaml_or_gitlab_would_read_otherwise(name: str) -> None:
    assert re.fullmatch(r"([a-z0-9]+(-[a-z0-9]+)*)?", model_slug(name))
