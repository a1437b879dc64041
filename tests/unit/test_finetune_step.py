"""Of what PyTorch's own index brings, the GPU's libraries stay; the rest comes by lock file from the package index."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from gpurig.common.assets import find_asset

SCRIPT = find_asset("gpurig.images", "steps/finetune.sh").read_text(encoding="utf-8")
OF_GPU = re.search(r"^gpu='(.*)'$", SCRIPT, re.MULTILINE)[1]


def _install(folder: Path, name: str, *files: str) -> None:
    info = folder / f"{name.replace('-', '_')}-1.dist-info"
    info.mkdir(parents=True)
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n", encoding="utf-8")
    record = [*files, f"{info.name}/METADATA", f"{info.name}/RECORD"]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in record), encoding="utf-8")


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder after the script's own step in Python."""
    folder = tmp_path / "finetune"
    _install(folder, "torch", "torch/__init__.py", "bin/torchrun")
    _install(folder, "cuda-toolkit")
    _install(folder, "cuda-bindings", "cuda/bindings/__init__.py")
    _install(folder, "nvidia-cublas-cu12", "nvidia/cublas/lib/libcublas.so.12")
    _install(folder, "triton", "triton/__init__.py")
    _install(folder, "sympy", "sympy/core/__init__.py", "isympy.py", "bin/isympy", "../../share/man/isympy.1")
    _install(folder, "typing_extensions", "typing_extensions.py")
    outside = tmp_path / "share"
    outside.mkdir(exist_ok=True)
    program = tmp_path / "rest.py"
    program.write_text(re.search(r"<<'PYTHON'\n(.*?)\nPYTHON\n", SCRIPT, re.DOTALL)[1], encoding="utf-8")
    monkeypatch.setattr("sys.argv", [str(program), str(folder), OF_GPU])
    runpy.run_path(str(program))
    assert outside.is_dir()
    return folder


def test_pytorch_and_the_gpus_libraries_stay(target: Path) -> None:
    kept = ("torch/__init__.py", "cuda/bindings/__init__.py", "nvidia/cublas/lib/libcublas.so.12", "triton/__init__.py")
    assert all((target / name).is_file() for name in kept)
    infos = {path.name for path in target.glob("*.dist-info")}
    assert infos == {
        f"{name}-1.dist-info" for name in ("torch", "cuda_toolkit", "cuda_bindings", "nvidia_cublas_cu12", "triton")
    }


def test_of_the_rest_no_folder_is_left_that_pip_would_pass_over(target: Path) -> None:
    assert not [path for path in target.iterdir() if "sympy" in path.name or "typing_extensions" in path.name]


@pytest.mark.parametrize("name", ["torch", "triton", "triton-rocm", "pytorch-triton-rocm", "nvidia-nvjitlink-cu12"])
def test_what_counts_as_the_gpus(name: str) -> None:
    assert re.fullmatch(OF_GPU, name)
    assert not re.fullmatch(OF_GPU, "torchvision")
