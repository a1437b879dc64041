"""What the benchmarks have in common: times, the machine they ran on, and the file they write."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import docker
from gpurig.common.files import write_atomic
from gpurig.common.version import __version__

_OUT = Path(__file__).parent / "out"


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def median_s(action: Callable[[], object], rounds: int) -> float:
    """The median of several times, after one that warms the caches."""
    action()
    return statistics.median(seconds(action) for _ in range(rounds))


def machine() -> dict[str, Any]:
    """What it ran on."""
    cpu = "unknown"
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()[0]}


def versions(packages: Sequence[str]) -> dict[str, str]:
    """What it ran with: gpurig, Python, the engine, and these packages."""
    client = docker.from_env()
    engine = str(client.version()["Version"])
    client.close()
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"gpurig": __version__, "python": platform.python_version(), "engine": engine, **found}


def write(name: str, figures: dict[str, Any]) -> None:
    """Write `benchmarks/out/NAME.json`, and say so."""
    path = _OUT / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, json.dumps(figures, indent=1) + "\n")
    print(f"\nwrote {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
