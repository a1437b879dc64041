"""What an image says of itself: image.json for the self-check, and an SBOM that CycloneDX's schema accepts."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from gpurig.images.job_image import DEFAULT_BASE_IMAGE
from standins.cyclonedx import schema_errors

REPOSITORY = Path(__file__).resolve().parents[2]
COMMIT = "0c1e57098bba43ac29e6e3b677cdceebdd22334f"
SITE = "lib/python3.12/site-packages"


def _package(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")


def _dpkg(*packages: tuple[str, str, str]) -> str:
    return "\n".join(
        f"Package: {name}\nStatus: {status}\nArchitecture: amd64\nVersion: {version}\nDescription: x\n more\n"
        for name, version, status in packages
    )


def _report(*packages: tuple[str, str, str]) -> str:
    """What `pip install --report` writes, as far as it is read: names, versions, a digit that the hash is made of."""
    installed = [
        {
            "metadata": {"name": name, "version": version},
            "download_info": {"archive_info": {"hashes": {"sha256": digit * 64}}},
        }
        for name, version, digit in packages
    ]
    return json.dumps({"install": installed})


@pytest.fixture
def about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a build stage's files around it."""
    place = REPOSITORY / "images/gpurig/images/assets/steps/about.py"
    spec = importlib.util.spec_from_file_location("about", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path / "gpurig"
    _package(root / SITE, "Some_Package", "1.2")
    _package(root / SITE, "llama_cpp_python", "0.3.36")
    _package(root / "finetune", "torch", "2.13.0+cpu")
    for name in ("app/gpurig/common", "models", "cuda"):
        (root / name).mkdir(parents=True)
    (root / "app/gpurig/common/version.py").write_text('__version__ = "1.2.3"\n', encoding="utf-8")
    (root / "llama.cpp-commit").write_text(COMMIT + "\n", encoding="ascii")
    (root / "models/demo.gguf").write_bytes(b"GGUF")
    for name in ("libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13"):
        (root / "cuda" / name).write_bytes(name.encode())
    locks, reports = tmp_path / "lock", tmp_path / "reports"
    locks.mkdir()
    reports.mkdir()
    (locks / "llama.lock").write_text(f"llama-cpp-python==0.3.36 \\\n    --hash=sha256:{'a' * 64}\n", encoding="utf-8")
    (reports / "packages.json").write_text(_report(("Some.Package", "1.2", "b")), encoding="utf-8")
    (reports / "torch.json").write_text(_report(("torch", "2.13.0", "c")), encoding="utf-8")
    cuda = _report(("nvidia-cublas", "13.1.1.3", "d"), ("nvidia-cuda-nvcc", "13.0.88", "e"))
    (reports / "cuda.json").write_text(cuda, encoding="utf-8")
    base, stage = tmp_path / "base-status", tmp_path / "stage-status"
    base.write_text(
        _dpkg(("libc6", "2.36-9+deb12u14", "install ok installed"), ("gone", "1", "deinstall ok config-files")),
        encoding="utf-8",
    )
    stage.write_text(
        _dpkg(("tini", "0.19.0-1", "install ok installed"), ("g++", "12", "install ok installed")), encoding="utf-8"
    )
    for name, value in (
        ("GPURIG", root),
        ("LOCKS", locks),
        ("REPORTS", reports),
        ("NVCC", tmp_path / "nvcc.purl"),
        ("BASE_PACKAGES", base),
        ("STAGE_PACKAGES", stage),
        ("BASE_RELEASE", tmp_path / "os-release"),
    ):
        monkeypatch.setattr(module, name, value)
    return module


def _written(about: ModuleType, folder: Path, *facts: str) -> tuple[dict[str, Any], dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    about.main([str(folder), *facts])
    image, sbom = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("image.json", "sbom.cdx.json"))
    return image, sbom


def _properties(sbom: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in sbom["metadata"]["component"]["properties"]}


CUDA = ("backend=cuda", "target=eval", "cpu_target=x86-64-v3", "archs=75-real;89-real", "driver=580")


def test_the_manifest_has_what_the_self_check_compares(about: ModuleType, tmp_path: Path) -> None:
    image, _ = _written(about, tmp_path / "out", *CUDA)
    assert image == {
        "backend": "cuda",
        "target": "eval",
        "cpu_target": "x86-64-v3",
        "archs": ["sm-75", "sm-89"],
        "cuda_major": 13,
        "driver": 580,
        "llama_cpp_commit": COMMIT,
    }


def test_what_is_not_known_is_left_out_of_the_manifest(about: ModuleType, tmp_path: Path) -> None:
    for library in (tmp_path / "gpurig/cuda").iterdir():
        library.unlink()
    image, _ = _written(about, tmp_path / "out", "backend=cuda", "target=eval", "archs=", "driver=")
    assert not {"archs", "driver", "cuda_major", "cpu_target"} & image.keys()


def test_amd_targets_are_architectures_too(about: ModuleType, tmp_path: Path) -> None:
    image, _ = _written(about, tmp_path / "out", "backend=rocm", "target=eval", "gfx=gfx1100;gfx1201")
    assert image["archs"] == ["gfx1100", "gfx1201"]


@pytest.mark.parametrize("base", [DEFAULT_BASE_IMAGE, "gpurig-base:bookworm", ""])
def test_the_sbom_is_valid_cyclonedx(about: ModuleType, tmp_path: Path, base: str) -> None:
    _, sbom = _written(about, tmp_path / "out", *CUDA, f"base={base}")
    assert schema_errors(sbom) == []


def test_the_judge_does_find_faults() -> None:
    assert schema_errors({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"name": "x"}]})


def test_the_sbom_names_what_is_in_the_image_and_nothing_else(about: ModuleType, tmp_path: Path) -> None:
    _, sbom = _written(about, tmp_path / "out", *CUDA, f"base={DEFAULT_BASE_IMAGE}")
    found = {one["name"]: one for one in sbom["components"]}
    assert {name: found[name]["version"] for name in ("Some_Package", "torch", "gpurig", "libc6", "tini")} == {
        "Some_Package": "1.2",
        "torch": "2.13.0+cpu",
        "gpurig": "1.2.3",
        "libc6": "2.36-9+deb12u14",
        "tini": "0.19.0-1",
    }
    assert found["Some_Package"]["hashes"] == [{"alg": "SHA-256", "content": "b" * 64}]
    # A report of another version tells nothing of the one that is there.
    assert "hashes" not in found["torch"]
    assert found["llama_cpp_python"]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert found["llama.cpp"]["version"] == COMMIT
    assert found["demo.gguf"]["hashes"][0]["content"] == hashlib.sha256(b"GGUF").hexdigest()
    assert found["libcublasLt.so.13"]["version"] == "13.1.1.3"
    assert found["libc6"]["purl"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64"
    # Compilers of the build stage and packages that were removed are not in the image.
    assert not {"g++", "gone"} & found.keys()
    [base] = sbom["metadata"]["component"]["components"]
    assert f"{base['name']}@sha256:{base['hashes'][0]['content']}" == DEFAULT_BASE_IMAGE


def test_a_package_url_names_the_base_images_distribution(about: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text('NAME="Ubuntu"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n')
    _, sbom = _written(about, tmp_path / "out", *CUDA)
    [libc] = [one for one in sbom["components"] if one["name"] == "libc6"]
    assert libc["purl"].startswith("pkg:deb/ubuntu/libc6@")


def test_the_sbom_tells_which_nvcc_compiled(about: ModuleType, tmp_path: Path) -> None:
    _, sbom = _written(about, tmp_path / "packaged", *CUDA)
    assert _properties(sbom)["io.gpurig:nvcc"] == "pkg:pypi/nvidia-cuda-nvcc@13.0.88"
    debian = "pkg:deb/debian/nvidia-cuda-toolkit@12.4.131~12.4.1-2?arch=amd64&checksum=sha256:00"
    (tmp_path / "nvcc.purl").write_text(debian + "\n", encoding="ascii")
    _, sbom = _written(about, tmp_path / "debian", *CUDA)
    assert _properties(sbom)["io.gpurig:nvcc"] == debian


def test_with_a_toolkit_image_no_lock_files_version_is_claimed(about: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "reports/cuda.json").unlink()
    _, sbom = _written(about, tmp_path / "out", *CUDA)
    [cublas] = [one for one in sbom["components"] if one["name"] == "libcublas.so.13"]
    assert "version" not in cublas
    assert "io.gpurig:nvcc" not in _properties(sbom)


def test_the_libraries_of_cuda_12_have_the_versions_of_its_packages(about: ModuleType, tmp_path: Path) -> None:
    for library in (tmp_path / "gpurig/cuda").iterdir():
        library.rename(library.with_suffix(".12"))
    cuda = _report(("nvidia-cublas-cu12", "12.4.5.8", "d"), ("nvidia-cuda-runtime-cu12", "12.4.127", "e"))
    (tmp_path / "reports/cuda.json").write_text(cuda, encoding="utf-8")
    image, sbom = _written(about, tmp_path / "out", *CUDA)
    assert image["cuda_major"] == 12
    versions = {one["name"]: one["version"] for one in sbom["components"] if one["name"].startswith("libcu")}
    assert versions == {"libcublas.so.12": "12.4.5.8", "libcublasLt.so.12": "12.4.5.8", "libcudart.so.12": "12.4.127"}


def test_equal_images_have_equal_sboms(about: ModuleType, tmp_path: Path) -> None:
    assert _written(about, tmp_path / "a", *CUDA) == _written(about, tmp_path / "b", *CUDA)


def test_two_references_in_an_sbom_are_never_the_same(about: ModuleType, tmp_path: Path) -> None:
    _, sbom = _written(about, tmp_path / "out", *CUDA)
    references = [one["bom-ref"] for one in sbom["components"]]
    assert len(references) == len(set(references))


def test_the_script_needs_nothing_but_the_standard_library() -> None:
    text = (REPOSITORY / "images/gpurig/images/assets/steps/about.py").read_text(encoding="utf-8")
    assert not re.search(r"^(from|import) gpurig", text, re.MULTILINE)
