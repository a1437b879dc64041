"""With PyTorch from an index of its own come the GPU libraries that it asks for, and nothing that a lock file has."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from gpurig.common.assets import find_asset

SCRIPT = find_asset("gpurig.images", "steps/finetune.sh").read_text(encoding="utf-8")
OF_GPU = re.search(r"^gpu='(.*)'$", SCRIPT, re.MULTILINE)[1]
# As torch 2.13.0's metadata has them, and those of its builds for ROCm and for the CPU.
CUDA = (
    "filelock",
    "sympy>=1.13.3",
    'cuda-toolkit[cublas,cudart]==12.6.3; platform_system == "Linux"',
    'cuda-bindings<13,>=12.9.4; platform_system == "Linux"',
    'nvidia-cudnn-cu12==9.10.2.21; platform_system == "Linux"',
    'nvidia-cublas-cu12==12.6.4.1; platform_system == "Windows"',
    'triton==3.7.1; platform_system == "Linux"',
    'optree>=0.13.0; extra == "optree"',
)


ASKED = [
    "cuda-toolkit[cublas,cudart]==12.6.3",
    "cuda-bindings<13,>=12.9.4",
    "nvidia-cudnn-cu12==9.10.2.21",
    "triton==3.7.1",
]


def _asked(requirements: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = folder / "torch-2.13.0.dist-info"
    info.mkdir()
    lines = [
        "Metadata-Version: 2.1",
        "Name: torch",
        "Version: 2.13.0",
        *(f"Requires-Dist: {one}" for one in requirements),
    ]
    (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    program = folder / "asks.py"
    program.write_text(re.search(r"<<'PYTHON'\n(.*?)\nPYTHON\n", SCRIPT, re.DOTALL)[1], encoding="utf-8")
    monkeypatch.setattr("sys.argv", [str(program), str(folder), OF_GPU])
    runpy.run_path(str(program))


@pytest.mark.parametrize(
    ("requirements", "asked"),
    [
        (CUDA, ASKED),
        (("filelock", 'triton-rocm==3.7.1; platform_system == "Linux"'), ["triton-rocm==3.7.1"]),
        (("filelock", "sympy>=1.13.3"), []),
    ],
    ids=["CUDA", "ROCm", "CPU"],
)
def test_the_gpus_libraries_are_asked_for_as_pytorch_does(requirements, asked, tmp_path, monkeypatch, capsys):
    _asked(requirements, tmp_path, monkeypatch)
    assert capsys.readouterr().out.split() == asked
