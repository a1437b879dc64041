"""An image and a box that do not fit each other: each case told apart, with all four facts in one line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from gpurig.common.errors import PrerequisiteError
from gpurig.common.process import run
from gpurig.evaljobs.gpu_driver import Card, CudaFacts, RocmFacts, gfx_name, read_cuda, read_rocm
from gpurig.evaljobs.gpu_fit import Built, built_of, require_cuda, require_rocm, runs_on
from hypothesis import given
from hypothesis import strategies as st
from standins.cuda import VARIABLE, build_cuda, cuda_text

ADA = Card("sm-89", "NVIDIA GeForce RTX 4090")
PASCAL = Card("sm-61", "NVIDIA GeForce GTX 1080")
IMAGE = Built(archs=("sm-75", "sm-89"), cuda_major=13, driver=580)
RDNA = Built(archs=("gfx1100",))
NODES = ("/dev/nvidiactl", "/dev/nvidia0")


def _cuda(**changes) -> CudaFacts:
    values = {"nodes": NODES, "driver": "580.95.05", "library": True, "cuda": 13000, "cards": (ADA,)}
    return CudaFacts(**{**values, **changes})


def _rocm(**changes) -> RocmFacts:
    values = {"driver": "amdgpu 6.10.5", "kfd": True, "cards": (Card("gfx1100"),)}
    return RocmFacts(**{**values, **changes})


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (CudaFacts(), "this container was given no NVIDIA GPU"),
        (CudaFacts(driver="580.95.05"), "this container was given no NVIDIA GPU"),
        (CudaFacts(nodes=NODES, driver="580.95.05"), "the driver's library (libcuda.so.1) is not"),
        (_cuda(driver="535.183.01", cuda=12020), "the driver is too old for this image"),
        (_cuda(driver="535.183.01", cuda=12020, cards=(), error="no device"), "the driver is too old for this image"),
        (_cuda(cards=(), error="no device"), "the driver shows no GPU in this container"),
        (_cuda(cards=(), error="unknown error"), "the driver does not start: unknown error"),
        (_cuda(cards=()), "the driver shows no GPU in this container"),
        (_cuda(cards=(ADA, PASCAL)), "no kernels for NVIDIA GeForce GTX 1080 (sm-61)"),
    ],
)
def test_what_is_wrong_with_an_nvidia_box_is_told_apart(facts, why):
    with pytest.raises(PrerequisiteError) as caught:
        require_cuda(IMAGE, facts)
    assert caught.value.message.startswith("no cuda device: ")
    assert why in caught.value.message
    assert "needed: 580 or newer, CUDA 13; arch built: sm-75, sm-89, present: " in caught.value.message
    assert caught.value.hint


def test_all_four_facts_stand_in_the_line():
    with pytest.raises(PrerequisiteError) as caught:
        require_cuda(IMAGE, _cuda(driver="535.183.01", cuda=12020, cards=(PASCAL,)))
    assert caught.value.message == (
        "no cuda device: the driver is too old for this image; driver found: 535.183.01, CUDA 12.2, needed: 580 or "
        "newer, CUDA 13; arch built: sm-75, sm-89, present: sm-61"
    )


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (RocmFacts(), "the host has no amdgpu driver"),
        (RocmFacts(driver="amdgpu 6.10.5"), "given no AMD GPU (/dev/kfd is not here)"),
        (_rocm(cards=(), elsewhere=2), "given no AMD GPU of the host's 2 (/dev/dri/renderD* is not here)"),
        (_rocm(closed=("/dev/kfd",)), "may not open /dev/kfd"),
        (_rocm(cards=(Card("gfx1030"),)), "no kernels for the card (gfx1030)"),
    ],
)
def test_what_is_wrong_with_an_amd_box_is_told_apart(facts, why):
    with pytest.raises(PrerequisiteError) as caught:
        require_rocm(RDNA, facts)
    assert caught.value.message.startswith("no rocm device: ")
    assert why in caught.value.message
    assert "needed: amdgpu with /dev/kfd; arch built: gfx1100, present: " in caught.value.message
    assert caught.value.hint


def test_a_box_that_fits_is_let_through():
    require_cuda(IMAGE, _cuda())
    require_cuda(IMAGE, _cuda(cuda=13020))
    require_cuda(Built(), _cuda())
    require_cuda(IMAGE, _cuda(cards=(Card(""),)))
    require_rocm(RDNA, _rocm())
    require_rocm(RDNA, _rocm(cards=(Card(""),)))
    require_rocm(RDNA, _rocm(cards=(Card("gfx1101"),), taken_for="gfx1100"))


@pytest.mark.parametrize(
    ("arch", "card", "runs"),
    [
        ("sm-89", "sm-89", True),
        ("sm-86", "sm-89", True),
        ("sm-89", "sm-86", False),
        ("sm-89", "sm-90", False),
        ("sm-120", "sm-121", True),
        ("sm-90", "sm-120", False),
        ("native", "sm-89", False),
        ("gfx1100", "gfx1100", True),
        ("gfx1100", "gfx1101", False),
        ("gfx11-generic", "gfx1102", True),
        ("gfx10-3-generic", "gfx1030", True),
        ("gfx10-3-generic", "gfx1010", False),
    ],
)
def test_which_code_runs_on_which_card(arch, card, runs):
    assert runs_on(arch, card) is runs


@given(st.text(max_size=20), st.integers(0, 200))
def test_no_name_of_an_architecture_breaks_the_comparison(arch, number):
    runs_on(arch, f"sm-{number}")
    runs_on(arch, f"gfx{number}")


@given(
    st.dictionaries(
        st.sampled_from(["archs", "cuda_major", "driver"]),
        st.one_of(st.none(), st.text(), st.integers(), st.lists(st.one_of(st.text(), st.none())), st.booleans()),
    )
)
def test_no_manifest_breaks_the_reading(manifest):
    built_of(json.loads(json.dumps(manifest)))


def test_a_manifest_says_what_the_image_was_compiled_for():
    assert built_of({"backend": "cuda", "archs": ["sm-75", "sm-89"], "cuda_major": 13, "driver": 580}) == IMAGE


# A program of its own: a library that is loaded stays loaded.
_READ = """
import dataclasses, json, sys
from pathlib import Path
from gpurig.evaljobs.gpu_driver import read_cuda
print(json.dumps(dataclasses.asdict(read_cuda(Path(sys.argv[1]), sys.argv[2]))))
"""


@pytest.fixture(scope="module")
def cuda_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_cuda(tmp_path_factory.mktemp("cuda"))


def _read(root: Path, library: Path, text: str) -> CudaFacts:
    done = run([sys.executable, "-c", _READ, str(root), str(library)], timeout_s=60, env={**os.environ, VARIABLE: text})
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    cards = tuple(Card(**card) for card in found["cards"])
    return CudaFacts(**{**found, "nodes": tuple(found["nodes"]), "cards": cards})


@pytest.fixture
def nvidia_root(tmp_path: Path) -> Path:
    """The files that NVIDIA's driver shows."""
    (tmp_path / "dev").mkdir()
    for name in ("nvidiactl", "nvidia0", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    folder = tmp_path / "proc/driver/nvidia"
    folder.mkdir(parents=True)
    (folder / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (root)  Tue Sep 23\n"
        "GCC version:  gcc version 13.3.0\n"
    )
    return tmp_path


def test_the_driver_is_asked_through_its_library(nvidia_root, cuda_library):
    text = cuda_text(13000, [("8.9", "NVIDIA GeForce RTX 4090"), ("12.0", "NVIDIA GeForce RTX 5080")])
    assert _read(nvidia_root, cuda_library, text) == CudaFacts(
        nodes=("/dev/nvidiactl", "/dev/nvidia0"),
        driver="580.95.05",
        library=True,
        cuda=13000,
        cards=(ADA, Card("sm-120", "NVIDIA GeForce RTX 5080")),
    )


@pytest.mark.parametrize(("code", "error"), [(100, "no device"), (803, "different versions"), (7, "error 7")])
def test_a_driver_that_does_not_start_says_why(nvidia_root, cuda_library, code, error):
    facts = _read(nvidia_root, cuda_library, cuda_text(12020, init=code))
    assert (facts.library, facts.cuda, facts.cards) == (True, 12020, ())
    assert error in facts.error


def test_without_a_library_the_files_are_what_is_known(nvidia_root):
    facts = read_cuda(nvidia_root, "libgpurig-no-such-library.so.1")
    assert facts == CudaFacts(nodes=("/dev/nvidiactl", "/dev/nvidia0"), driver="580.95.05")


def test_the_closed_modules_version_is_read_too(nvidia_root):
    path = nvidia_root / "proc/driver/nvidia/version"
    path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n")
    assert read_cuda(nvidia_root, "libgpurig-no-such-library.so.1").driver == "535.183.01"


def test_a_machine_without_anything_gives_empty_facts(tmp_path):
    assert read_cuda(tmp_path, "libgpurig-no-such-library.so.1") == CudaFacts()
    assert read_rocm(tmp_path) == RocmFacts()


@pytest.fixture
def amd_root(tmp_path: Path) -> Path:
    """The files that amdgpu shows in a container that was given the first of two cards."""
    nodes = tmp_path / "sys/class/kfd/kfd/topology/nodes"
    for number, (simds, minor, version) in enumerate([(0, 0, 0), (192, 128, 110000), (64, 129, 100300)]):
        (nodes / str(number)).mkdir(parents=True)
        text = f"cpu_cores_count 0\nsimd_count {simds}\ngfx_target_version {version}\ndrm_render_minor {minor}\n"
        (nodes / str(number) / "properties").write_text(text)
        (nodes / str(number) / "name").write_text("ip discovery\n")
    (tmp_path / "sys/module/amdgpu").mkdir(parents=True)
    (tmp_path / "dev/dri").mkdir(parents=True)
    (tmp_path / "dev/kfd").touch()
    (tmp_path / "dev/dri/renderD128").touch()
    return tmp_path


def test_amds_cards_are_those_whose_device_files_are_here(amd_root):
    facts = read_rocm(amd_root)
    assert facts.driver.startswith("amdgpu of Linux ")
    assert (facts.kfd, facts.closed, facts.elsewhere) == (True, (), 1)
    assert facts.cards == (Card("gfx1100", "ip discovery"),)


@pytest.mark.parametrize(("value", "name"), [("10.3.0", "gfx1030"), ("9.0.10", "gfx90a"), ("", ""), ("yes", "")])
def test_what_the_runtime_takes_cards_for_is_known(amd_root, monkeypatch, value, name):
    monkeypatch.setenv("HSA_OVERRIDE_GFX_VERSION", value)
    assert read_rocm(amd_root).taken_for == name


def test_amds_own_module_tells_its_version(amd_root):
    (amd_root / "sys/module/amdgpu/version").write_text("6.10.5\n")
    assert read_rocm(amd_root).driver == "amdgpu 6.10.5"


def test_device_files_that_may_not_be_opened_are_named(amd_root, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, _mode: "kfd" not in str(path))
    assert read_rocm(amd_root).closed == ("/dev/kfd",)


@pytest.mark.parametrize(("version", "name"), [(90010, "gfx90a"), (110501, "gfx1151"), (0, ""), (93000, "")])
def test_targets_are_named_as_compilers_do(version, name):
    assert gfx_name(version) == name


def test_nothing_heavy_is_loaded_to_know():
    code = (
        "import sys; from gpurig.evaljobs.gpu_driver import read_cuda, read_rocm; read_cuda(); read_rocm()\n"
        "from gpurig.evaljobs import gpu_fit, selfcheck\n"
        "print([name for name in ('llama_cpp', 'numpy', 'pydantic', 'yaml') if name in sys.modules])"
    )
    done = run([sys.executable, "-c", code], timeout_s=60)
    assert done.stdout.strip() == "[]"
