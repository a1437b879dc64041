"""The job image that a box gets: one that runs there, or an error that says what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from gpurig.common.errors import ApplianceError, InputError, PrerequisiteError
from gpurig.images.job_spec import CUDA_ARCHS, JobImageSpec, Wish, choose_job_image
from gpurig.provisioning.cuda import CUDA_MAJORS, driver_branch, oldest_driver
from gpurig.provisioning.detect import detect
from gpurig.provisioning.facts import Backend, Gpu
from gpurig.provisioning.rocm import ROCM_SOURCES, RocmSource, kernels_of
from hypothesis import given
from hypothesis import strategies as st
from standins import machines

# Recorded with drivers that no CUDA 12 runs on.
DRIVER_TOO_OLD = {
    "a100-sxm4-40gb-mig-r510",
    "a10g-r515",
    "gtx-1660-ti-r418",
    "quadro-p400-r418",
    "rtx-3060-laptop-r515",
    "tesla-p100-16gb-r510",
    "tesla-t4-r515",
}


def card(arch: str = "sm-89", driver: str = "580.95.05", name: str = "NVIDIA GeForce RTX 4090") -> Gpu:
    return Gpu(
        backend="cuda", uuid="GPU-1", name=name, pci_address="0000:01:00.0", memory_bytes=1, arch=arch, driver=driver
    )


def amd(arch: str) -> Gpu:
    return Gpu(backend="rocm", uuid="1", name="Radeon", pci_address="0000:03:00.0", memory_bytes=1, arch=arch)


def outcome(
    backend: Backend, gpus: Sequence[Gpu], wish: Wish | None = None
) -> tuple[JobImageSpec | None, ApplianceError | None]:
    try:
        return choose_job_image(backend, gpus, wish), None
    except ApplianceError as error:
        return None, error


def test_a_new_driver_gets_cuda_13_and_code_for_its_card_alone() -> None:
    spec = choose_job_image("cuda", [card()])
    assert (spec.cuda_major, spec.archs, spec.driver) == (13, (89,), 580)
    assert spec.name == "gpurig-job-cuda13-sm89"


def test_an_older_driver_gets_cuda_12() -> None:
    spec = choose_job_image("cuda", [card(driver="550.54.14")])
    assert (spec.cuda_major, spec.archs, spec.driver) == (12, (89,), 525)


def test_a_card_that_cuda_13_dropped_gets_cuda_12_whatever_its_driver() -> None:
    assert choose_job_image("cuda", [card("sm-61")]).name == "gpurig-job-cuda12-sm61"


def test_several_cards_share_an_image_with_code_for_each_by_the_cuda_that_all_take() -> None:
    assert (
        choose_job_image("cuda", [card("sm-120"), card("sm-89"), card("sm-89")]).name == "gpurig-job-cuda13-sm89-sm120"
    )
    assert choose_job_image("cuda", [card("sm-120"), card("sm-61")]).name == "gpurig-job-cuda12-sm61-sm120"


def test_gpus_of_another_vendor_are_passed_over() -> None:
    box = [amd("gfx1100"), card()]
    assert choose_job_image("cuda", box).arch_names == ("sm-89",)
    assert choose_job_image("rocm", box).arch_names == ("gfx1100",)
    assert choose_job_image("cpu", box) == JobImageSpec("cpu")


def test_an_image_for_gitlab_coms_runners_has_code_for_their_t4_too() -> None:
    assert choose_job_image("cuda", [card()], Wish(saas=True)).name == "gpurig-job-cuda13-sm75-sm89"
    assert choose_job_image("cuda", [], Wish(saas=True)).name == "gpurig-job-cuda13-sm75"


@pytest.mark.parametrize("major", CUDA_MAJORS)
def test_all_is_every_architecture_of_the_cuda_version(major: int) -> None:
    spec = choose_job_image("cuda", [], Wish(archs=("all",), cuda_major=major))
    assert spec.archs == CUDA_ARCHS[major]
    assert spec.name == f"gpurig-job-cuda{major}-all"


def test_only_blackwell_needs_another_toolkit_than_the_one_in_packages() -> None:
    assert not choose_job_image("cuda", [], Wish(archs=("all",), cuda_major=13)).unpackaged_archs
    every = choose_job_image("cuda", [], Wish(archs=("all",), cuda_major=12))
    assert every.unpackaged_archs == tuple(arch for arch in every.archs if arch >= 100)
    assert not choose_job_image("cuda", [card("sm-61"), card("sm-90")]).unpackaged_archs
    assert choose_job_image("cuda", [card("sm-120", driver="570.1")]).unpackaged_archs == (120,)


@pytest.mark.parametrize("text", ["sm-89", "sm_89", "sm89", "89", "8.9"])
def test_an_architecture_may_be_written_as_people_write_it(text: str) -> None:
    assert choose_job_image("cuda", [], Wish(archs=(text,))).archs == (89,)


def test_named_architectures_are_for_another_machine_whose_driver_is_not_this_ones() -> None:
    assert choose_job_image("cuda", [card(driver="470.1")], Wish(archs=("sm-120",))).cuda_major == 13


def test_a_driver_that_is_too_old_is_named_with_the_one_that_is_needed() -> None:
    with pytest.raises(PrerequisiteError) as caught:
        choose_job_image("cuda", [card(driver="470.82.01")])
    assert "470.82.01" in caught.value.message
    assert "525" in caught.value.message
    assert "580" in caught.value.message


def test_blackwell_needs_the_driver_that_it_came_with() -> None:
    with pytest.raises(PrerequisiteError, match="needs 570 or newer"):
        choose_job_image("cuda", [card("sm-120", driver="560.28.03")])


def test_a_rocm_image_is_made_with_the_rocm_that_has_kernels_for_the_card() -> None:
    own, told = choose_job_image("rocm", [amd("gfx1100")]), choose_job_image("rocm", [amd("gfx1032")])
    assert (own.name, own.rocm, own.runs_as) == ("gpurig-job-rocm-gfx1100", "amd", "")
    assert (told.name, told.rocm, told.runs_as) == ("gpurig-job-rocm-gfx1030", "debian", "gfx1030")
    assert choose_job_image("rocm", [], Wish(archs=("gfx1100",), rocm="debian")).rocm == "debian"


@pytest.mark.parametrize("source", ROCM_SOURCES)
def test_all_is_every_target_of_the_rocm(source: RocmSource) -> None:
    spec = choose_job_image("rocm", [], Wish(archs=("all",), rocm=source))
    assert (spec.name, set(spec.gfx)) == ("gpurig-job-rocm-all", kernels_of(source))


def test_a_card_that_no_rocm_has_kernels_for_is_an_error_before_anything_is_built() -> None:
    with pytest.raises(PrerequisiteError, match="no kernels for gfx904"):
        choose_job_image("rocm", [amd("gfx904")])


def test_a_card_that_does_not_tell_its_architecture_is_an_error_with_a_way_out() -> None:
    with pytest.raises(PrerequisiteError, match="does not tell"):
        choose_job_image("cuda", [card("")])
    with pytest.raises(PrerequisiteError, match="does not tell"):
        choose_job_image("rocm", [amd("")])


@pytest.mark.parametrize(
    ("backend", "wish"),
    [
        ("cuda", Wish(archs=("gfx1100",))),
        ("cuda", Wish(archs=("sm-999",))),
        ("cuda", Wish(archs=("sm-61", "sm-88"))),
        ("cuda", Wish(archs=("sm-61",), cuda_major=13)),
        ("cuda", Wish(archs=("sm-89",), rocm="amd")),
        ("cuda", Wish(cuda_major=11)),
        ("rocm", Wish(archs=("sm-89",))),
        ("rocm", Wish(saas=True, archs=("gfx1100",))),
        ("rocm", Wish(cuda_major=12, archs=("gfx1100",))),
        ("cpu", Wish(archs=("sm-89",))),
        ("cpu", Wish(saas=True)),
        ("cpu", Wish(rocm="debian")),
        ("cpu", Wish(target="train")),  # type: ignore[arg-type]
        ("cpu", Wish(cpu_target="native")),  # type: ignore[arg-type]
        ("vulkan", Wish()),
    ],
    ids=str,
)
def test_a_wish_that_cannot_be_is_bad_input(backend: str, wish: Wish) -> None:
    with pytest.raises(InputError) as caught:
        choose_job_image(backend, [], wish)  # type: ignore[arg-type]
    assert caught.value.hint


@pytest.mark.parametrize("backend", ["cuda", "rocm"])
def test_without_a_gpu_and_a_wish_there_is_nothing_to_build_for(backend: str) -> None:
    with pytest.raises(PrerequisiteError, match="was found"):
        choose_job_image(backend, [])  # type: ignore[arg-type]


def test_the_target_shows_in_the_name() -> None:
    assert choose_job_image("cpu", [], Wish(target="finetune")).name == "gpurig-job-cpu-finetune"


@pytest.mark.parametrize("name", machines.names())
def test_every_recorded_machine_gets_an_image_that_runs_there_or_a_reason(name: str, tmp_path: Path) -> None:
    machine = machines.load(name)
    host = detect(root=machine.build(tmp_path), nvml=machine.source())
    for backend in dict.fromkeys(gpu.backend for gpu in host.gpus):
        cards = [gpu for gpu in host.gpus if gpu.backend == backend]
        spec, error = outcome(backend, host.gpus)
        assert (error is not None) == (name in DRIVER_TOO_OLD), error
        if spec is None:
            assert error is not None
            assert error.hint
            assert any(gpu.driver in error.message for gpu in cards)
            continue
        archs = {gpu.arch for gpu in cards}
        assert set(spec.arch_names) >= archs if spec.runs_as else set(spec.arch_names) == archs
        for gpu in cards if backend == "cuda" else []:
            assert driver_branch(gpu) >= oldest_driver(spec.cuda_major, gpu)


cards = st.builds(
    card,
    arch=st.sampled_from(
        ["", "sm-50", "sm-61", "sm-70", "sm-75", "sm-86", "sm-89", "sm-90", "sm-120", "sm-121", "sm-130"]
    ),
    driver=st.sampled_from(["", "470.82.01", "525.60", "550.1", "570.1", "580.95.05", "610.1", "rubbish"]),
)


@given(st.lists(cards, max_size=4), st.booleans())
def test_whatever_is_found_the_image_has_code_for_every_card_or_an_error_says_why(gpus: list[Gpu], saas: bool) -> None:
    spec, error = outcome("cuda", gpus, Wish(saas=saas))
    if spec is None:
        assert error is not None
        assert error.message
        assert error.hint
        return
    assert {gpu.arch for gpu in gpus} | ({"sm-75"} if saas else set()) == set(spec.arch_names)
    assert set(spec.archs) <= set(CUDA_ARCHS[spec.cuda_major])
    assert all(driver_branch(gpu) >= oldest_driver(spec.cuda_major, gpu) for gpu in gpus)
    newer = [major for major in CUDA_MAJORS if major > spec.cuda_major]
    for major in newer:
        assert not set(spec.archs) <= set(CUDA_ARCHS[major]) or any(
            driver_branch(gpu) < oldest_driver(major, gpu) for gpu in gpus
        )
