"""What a ROCm job image takes over of the builder image's libraries: its own targets' kernels, nothing of others'."""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest
from gpurig.common.assets import find_asset
from hypothesis import given
from hypothesis import strategies as st

MAGIC = b"__CLANG_OFFLOAD_BUNDLE__"
TARGETS = ("gfx803", "gfx906", "gfx90a", "gfx1030", "gfx1100", "gfx1101")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rocm_step", find_asset("gpurig.images", "steps/rocm.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rocm = load()


def bundle(codes: Mapping[str, bytes]) -> bytes:
    """A bundle as clang-offload-bundler writes it: the header, then each code object at a page's start."""
    names = [b"host-x86_64-unknown-linux-gnu-", *(f"hipv4-amdgcn-amd-amdhsa--{name}".encode() for name in codes)]
    offset = 4096
    header, body = MAGIC + struct.pack("<Q", len(names)), b""
    for name, code in zip(names, (b"", *codes.values()), strict=True):
        header += struct.pack("<QQQ", offset + len(body), len(code), len(name)) + name
        body += code
    return header.ljust(offset, b"\0") + body


def library(section: bytes, *, name: bytes = b".hip_fatbin", before: bytes = b"\x90" * 100) -> bytearray:
    """A 64-bit ELF file with that section, after other bytes."""
    names = b"\0" + name + b"\0.shstrtab\0"
    start = 64 + len(before)
    table = start + len(section) + len(names)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2)

    def entry(label: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", label, 1, 0, 0, offset, size, 0, 0, 1, 0)

    headers = bytes(64) + entry(1, start, len(section)) + entry(2 + len(name), start + len(section), len(names))
    return bytearray(header + before + section + names + headers)


codes = st.dictionaries(st.sampled_from(TARGETS), st.binary(min_size=1, max_size=200), min_size=1)


@given(st.lists(codes, min_size=1, max_size=4), st.data())
def test_only_the_code_of_other_targets_changes_and_it_becomes_zeros(
    bundles: Sequence[Mapping[str, bytes]], data: st.DataObject
) -> None:
    wanted = data.draw(st.sampled_from(sorted({target for one in bundles for target in one})))
    before = library(b"".join(bundle(one) for one in bundles))
    after = bytearray(before)
    blanked = rocm.blank_others(after, [wanted])
    assert blanked == sum(len(code) for one in bundles for target, code in one.items() if target != wanted)
    expected = library(
        b"".join(
            bundle({target: code if target == wanted else bytes(len(code)) for target, code in one.items()})
            for one in bundles
        )
    )
    assert after == expected


def test_variants_of_a_target_are_its_code() -> None:
    after = library(bundle({"gfx90a:xnack+": b"plus", "gfx90a:xnack-": b"minus", "gfx906:xnack-": b"other"}))
    assert rocm.blank_others(after, ["gfx90a"]) == len(b"other")
    assert [bytes(after[start : start + size]) for _, start, size in rocm.code_objects(after)] == [
        b"", b"plus", b"minus", bytes(5),
    ]  # fmt: skip


def test_a_library_that_lacks_a_target_is_an_error_and_keeps_what_it_has() -> None:
    data = library(bundle({"gfx1100": b"code", "gfx1030": b"other"}))
    before = bytes(data)
    with pytest.raises(ValueError, match="no code objects for gfx1201"):
        rocm.blank_others(data, ["gfx1100", "gfx1201"])
    assert data == before


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(bytearray(b"no library"), id="text"),
        pytest.param(library(b"code", name=b".text"), id="no-gpu-code"),
        # LLVM's own libraries have the word in them, as what to look for.
        pytest.param(library(MAGIC + b"x" * 60, name=b".rodata"), id="the-word-elsewhere"),
        pytest.param(library(b"CCOB" + b"x" * 60), id="compressed"),
    ],
)
def test_what_has_no_readable_bundle_stays_as_it_is(data: bytearray) -> None:
    before = bytes(data)
    assert rocm.blank_others(data, ["gfx1100"]) == 0
    assert data == before


@pytest.mark.parametrize(
    "broken",
    [
        MAGIC,
        MAGIC + struct.pack("<Q", 2**63),
        MAGIC + struct.pack("<QQQQ", 1, 2**62, 2**62, 8) + b"gfx1100-",
        MAGIC + struct.pack("<QQQQ", 1, 40, 8, 2**62) + b"gfx1100-",
    ],
)
def test_a_bundle_that_points_outside_of_its_section_is_refused_before_anything_is_written(broken: bytes) -> None:
    data = library(bundle({"gfx1030": b"code"}) + broken)
    before = bytes(data)
    with pytest.raises(ValueError, match="bundle"):
        rocm.blank_others(data, ["gfx1030"])
    assert data == before


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        # Debian's rocBLAS 6.4, and hipBLASLt's folders per target.
        ("rocblas/4.4.1/library/TensileLibrary_lazy_gfx1100.dat", True),
        ("rocblas/4.4.1/library/TensileLibrary_Type_HH_Contraction_l_Ailk_Bjlk_Cijk_Dijk_fallback.dat", True),
        ("rocblas/4.4.1/library/TensileLibrary_Type_HH_Contraction_l_Ailk_fallback_gfx1100.hsaco", True),
        ("rocblas/4.4.1/library/Kernels.so-000-gfx1101.hsaco", False),
        ("rocblas/4.4.1/library/Kernels.so-000-gfx90a-xnack+.hsaco", False),
        ("hipblaslt/library/gfx1100/TensileLibrary_lazy_gfx1100.dat.zlib", True),
        ("hipblaslt/library/gfx942/TensileLibrary_lazy_gfx942.dat.zlib", False),
        ("hipblaslt/library/hipblasltExtOpLibrary.dat", True),
        ("hipv4-amdgcn-amd-amdhsa--gfx11-generic", True),
        ("hipv4-amdgcn-amd-amdhsa--gfx9-4-generic:xnack-", True),
    ],
)
def test_kernels_are_taken_by_the_target_in_their_name_and_those_for_all(name: str, taken: bool) -> None:
    assert rocm.of_targets(name, ["gfx1100"]) == taken


def test_every_target_that_cards_can_be_taken_for_has_its_stage_in_the_dockerfile() -> None:
    from gpurig.provisioning.rocm import _RUNS_AS

    text = Path(find_asset("gpurig.images", "Dockerfile.rocm")).read_text(encoding="utf-8")
    for target in set(_RUNS_AS.values()):
        major, minor, stepping = target.removeprefix("gfx")[:-2], int(target[-2], 16), int(target[-1], 16)
        assert f"FROM job AS runs-as-{target}\nENV HSA_OVERRIDE_GFX_VERSION={major}.{minor}.{stepping}\n" in text
