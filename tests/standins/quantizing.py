"""What the tests of `gpurig-job quantize` share: the program, its report, and what it works on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from gpurig.common.assets import find_asset
from gpurig.common.process import Finished, run

DEMO = find_asset("gpurig.evaljobs", "models") / "demo-generator.gguf"
"""A model that was trained: figures of divergence mean something."""


def job(*words: object, cwd: Path | None = None) -> Finished:
    """Run `gpurig-job`, in a process of its own: a fault of llama.cpp's ends a process."""
    return run([sys.executable, "-m", "gpurig.evaljobs", *map(str, words)], timeout_s=600, cwd=cwd)


def done(*words: object) -> Finished:
    """Run `gpurig-job`, which succeeds."""
    finished = job(*words)
    assert finished.code == 0, finished.stderr
    return finished


def write_words(path: Path) -> Path:
    """Write a text in the words of the models with random weights."""
    path.write_text(" ".join(["stage script test build image deploy job good bad"] * 120))
    return path


def report(path: Path) -> dict[str, Any]:
    """A report as JSON has it."""
    values = json.loads(path.read_text())
    assert isinstance(values, dict)
    return values
