"""A fake libcuda.so.1: what NVIDIA's driver says of itself and its cards, from one line of text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from standins.nvml.library import build_library

SONAME = "libcuda.so.1"
VARIABLE = "GPURIG_FAKE_CUDA"
# What the library reads where the variable is not set; and where a container's loader finds the library.
DEFAULT_STATE = "/etc/gpurig-fake-cuda.txt"
IN_CONTAINER = f"/usr/lib/x86_64-linux-gnu/{SONAME}"


def build_cuda(folder: Path) -> Path:
    """Compile the library into `folder`; skips the test where there is no C compiler."""
    return build_library(folder, Path(__file__).with_name("fake_cuda.c"), SONAME)


def cuda_text(version: int, cards: Sequence[tuple[str, str]] = (), *, init: int = 0) -> str:
    """The line that drives it.

    Args:
        version: 13000 for CUDA 13.0.
        cards: compute capability and name of each.
        init: what cuInit returns; 0 is success, 100 "no device".
    """
    return f"{version} {init} " + ",".join(f"{capability}:{name}" for capability, name in cards) + "\n"
