"""Which ROCm an AMD card's image is made with: one that has kernels for it, or an error that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.provisioning.detect import detect
from gpurig.provisioning.rocm import ROCM_SOURCES, RocmBuild, RocmSource, kernels_of, rocm_build
from hypothesis import given
from hypothesis import strategies as st
from standins import machines

TARGETS = st.sampled_from(sorted(set().union(*map(kernels_of, ROCM_SOURCES)) | {"gfx1012", "gfx1031", "gfx1032"}))

# Every AMD machine that was recorded, with what its cards must be built with.
RECORDED = {
    "mi210-x8-with-banks": RocmBuild("amd", ("gfx90a",)),
    "mi210-x8-xgmi": RocmBuild("amd", ("gfx90a",)),
    "mi300a-x4-spx": RocmBuild("amd", ("gfx942",)),
    "mi300x-cpx-part": RocmBuild("amd", ("gfx942",)),
    "mi308x-cpx-part": RocmBuild("amd", ("gfx942",)),
    "r9700-ecc-beside-igpu-2gib": RocmBuild("amd", ("gfx1201",)),
    "r9700-kfd-part": RocmBuild("amd", ("gfx1201",)),
    "rx6600-beside-raphael-igpu": RocmBuild("debian", ("gfx1030",), runs_as="gfx1030"),
    "rx6800-beside-raphael-igpu-64mib": RocmBuild("amd", ("gfx1030",)),
    "rx6900xt": RocmBuild("amd", ("gfx1030",)),
    "rx7900xtx": RocmBuild("amd", ("gfx1100",)),
    "rx7900xtx-beside-raphael-igpu": RocmBuild("amd", ("gfx1100",)),
    "rx7900xtx-beside-rtx3060": RocmBuild("amd", ("gfx1100",)),
    "rx9060xt-beside-raphael-igpu": RocmBuild("amd", ("gfx1200",)),
    "rx9070xt": RocmBuild("amd", ("gfx1201",)),
    "strix-halo-128g-110g": RocmBuild("amd", ("gfx1151",)),
    "strix-halo-128g-ttm96": RocmBuild("amd", ("gfx1151",)),
    "strix-halo-96g-carve-out": RocmBuild("amd", ("gfx1151",)),
    "vega10-old-kernel": RocmBuild("debian", ("gfx900",)),
}


@pytest.mark.parametrize("name", machines.names())
def test_every_recorded_amd_machine_gets_a_build_that_has_kernels_for_its_cards(name: str, tmp_path: Path) -> None:
    machine = machines.load(name)
    facts = detect(root=machine.build(tmp_path), nvml=machine.source())
    cards = [gpu.arch for gpu in facts.gpus if gpu.backend == "rocm"]
    assert (RECORDED.get(name) is None) == (not cards)
    if cards:
        assert rocm_build(cards) == RECORDED[name]


@given(st.sets(TARGETS, min_size=1), st.sampled_from([None, *ROCM_SOURCES]))
def test_a_build_has_kernels_for_all_it_is_compiled_for_and_is_of_the_source_that_was_asked_for(
    targets: set[str], source: RocmSource | None
) -> None:
    try:
        build = rocm_build(targets, source)
    except PrerequisiteError:
        assert not all(target in kernels_of(one) for one in ROCM_SOURCES if source in {None, one} for target in targets)
        return
    assert set(build.targets) <= kernels_of(build.source)
    assert source in {None, build.source}
    # Told to take every card for one target, or compiled for each by its own name: never both.
    assert build.targets == ((build.runs_as,) if build.runs_as else tuple(sorted(targets)))
    assert set(build.cards) >= targets


@given(st.sets(TARGETS, min_size=1))
def test_amds_own_rocm_is_never_told_to_take_a_card_for_another(targets: set[str]) -> None:
    try:
        assert rocm_build(targets, "amd").runs_as == ""
    except PrerequisiteError:
        return


def test_a_card_that_only_debians_rocm_has_kernels_for_is_an_error_with_amds_that_says_so() -> None:
    with pytest.raises(PrerequisiteError) as caught:
        rocm_build(["gfx906"], "amd")
    assert caught.value.message == "rocBLAS in AMD's ROCm has no kernels for gfx906"
    assert caught.value.hint == "Debian's ROCm has: --rocm debian"


def test_a_card_that_no_rocm_has_kernels_for_is_an_error_that_names_those_it_has() -> None:
    with pytest.raises(PrerequisiteError, match="AMD's ROCm and Debian's ROCm has no kernels for gfx904") as caught:
        rocm_build(["gfx904", "gfx900"])
    assert "gfx900" in caught.value.hint


def test_cards_that_need_different_builds_share_no_image() -> None:
    # The first runs only when every card is taken for a gfx1030, which the second is not.
    with pytest.raises(PrerequisiteError, match="no single image runs on gfx1032, gfx1201"):
        rocm_build(["gfx1201", "gfx1032"])


def test_cards_of_one_family_share_the_image_of_the_target_they_all_run_as() -> None:
    assert rocm_build(["gfx1032", "gfx1030", "gfx1031"]) == RocmBuild("debian", ("gfx1030",), runs_as="gfx1030")


@pytest.mark.parametrize("targets", [[], [""], ["gfx"], ["1100"], ["gfx1100;gfx1030"], ["gfx11000"]])
def test_what_is_no_target_is_refused(targets: list[str]) -> None:
    with pytest.raises(InputError):
        rocm_build(targets)
