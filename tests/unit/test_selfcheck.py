"""selfcheck: what it demands, and that a GPU backend never falls back to the CPU in silence."""

from __future__ import annotations

import json
import sys

import pytest
from gpurig.common.errors import PrerequisiteError
from gpurig.evaljobs.selfcheck import Device, parse_cpu_flags, read_manifest, require_cpu, require_device, run_selfcheck

CPU = Device(name="CPU", description="AMD EPYC", kind="cpu", free_bytes=1, total_bytes=1)
CUDA = Device(name="CUDA0", description="NVIDIA T4", kind="gpu", free_bytes=1, total_bytes=1)
ROCM = Device(name="ROCm0", description="Radeon", kind="gpu", free_bytes=1, total_bytes=1)


@pytest.mark.parametrize(
    ("backend", "devices"), [("cpu", [CPU]), ("cpu", [CPU, CUDA]), ("cuda", [CPU, CUDA]), ("rocm", [ROCM, CPU])]
)
def test_a_backend_with_its_device_is_fine(backend, devices):
    require_device(backend, devices, gpu_offload=backend != "cpu", present=())


@pytest.mark.parametrize(
    ("backend", "devices"), [("cuda", []), ("cuda", [CPU]), ("cuda", [CPU, ROCM]), ("rocm", [CPU, CUDA]), ("cpu", [])]
)
@pytest.mark.parametrize("offload", [True, False])
def test_a_backend_without_its_device_is_a_missing_prerequisite(backend, devices, offload):
    with pytest.raises(PrerequisiteError) as caught:
        require_device(backend, devices, gpu_offload=offload, present=())
    assert caught.value.exit_code == 4
    assert caught.value.hint


def test_the_message_names_what_was_looked_for_and_what_was_found():
    with pytest.raises(PrerequisiteError) as caught:
        require_device("cuda", [CPU], gpu_offload=True, present=("/dev/nvidiactl",))
    assert caught.value.message == (
        "no cuda device: llama.cpp looked for CUDA devices and has CPU; device files here: /dev/nvidiactl"
    )


def test_an_image_for_another_backend_says_so():
    with pytest.raises(PrerequisiteError, match="an image for cpu"):
        require_device("rocm", [CPU], gpu_offload=False, present=(), built="cpu")


@pytest.mark.parametrize(
    ("target", "flags", "missing"),
    [
        ("x86-64-v3", "sse4_2 avx fma f16c bmi2", "avx2"),
        ("x86-64-v4", "sse4_2 avx avx2 fma f16c bmi2 avx512f", "avx512bw, avx512cd, avx512dq, avx512vl"),
        ("x86-64-v2", "sse2", "sse4_2"),
    ],
)
def test_a_processor_below_the_images_level_is_named_before_it_meets_an_illegal_instruction(target, flags, missing):
    with pytest.raises(PrerequisiteError, match=f"lacks {missing}, "):
        require_cpu(target, frozenset(flags.split()))


@pytest.mark.parametrize(("target", "flags"), [("", frozenset()), ("x86-64-v3", None), ("armv8", frozenset({"asimd"}))])
def test_what_cannot_be_compared_demands_nothing(target, flags):
    require_cpu(target, flags)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2\n\nprocessor\t: 1\nflags\t\t: fpu\n", frozenset({"fpu", "avx2"})),
        ("processor\t: 0\nFeatures\t: asimd\n", None),
        ("", None),
    ],
)
def test_processor_flags_are_those_of_the_first_processor(text, flags):
    assert parse_cpu_flags(text) == flags


def test_outside_of_an_image_there_is_no_manifest(tmp_path):
    assert read_manifest(tmp_path / "image.json") == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '"cpu"', '{"backend": "tpu"}'])
def test_a_damaged_manifest_is_said_in_one_line(tmp_path, text):
    path = tmp_path / "image.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PrerequisiteError, match=r"image\.json"):
        read_manifest(path)


def test_a_gpu_images_own_backend_is_demanded_when_none_is_named(tmp_path, monkeypatch):
    (tmp_path / "image.json").write_text(json.dumps({"backend": "cuda"}), encoding="utf-8")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr("gpurig.evaljobs.selfcheck._require_gpu", lambda *_: None)
    monkeypatch.setattr("gpurig.evaljobs.selfcheck._devices", lambda _llama: (CPU,))
    with pytest.raises(PrerequisiteError, match="no cuda device"):
        run_selfcheck()


@pytest.mark.parametrize(
    ("error", "text"), [(ImportError("no module"), "not here"), (OSError("libfoo.so"), "libfoo.so")]
)
def test_a_llama_that_does_not_load_is_a_missing_prerequisite(monkeypatch, error, text):
    class Finder:
        def find_spec(self, name, *_):
            if name == "llama_cpp":
                raise error

    for name in [name for name in sys.modules if name.partition(".")[0] == "llama_cpp"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(PrerequisiteError, match=text):
        run_selfcheck("cpu")
