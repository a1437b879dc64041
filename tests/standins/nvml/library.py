"""Builds the fake library and writes the file that drives it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpurig.common.files import write_atomic
from gpurig.common.process import run

from standins.missing import missing

SONAME = "libnvidia-ml.so.1"
VARIABLE = "GPURIG_FAKE_NVML"
_SOURCE = Path(__file__).with_name("fake_nvml.c")


def build_library(folder: Path) -> Path:
    """Compile the library into `folder`; skips the test where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        missing("no C compiler (cc) to build the fake NVML with", "GPURIG_REQUIRE_CC")
    library = folder / SONAME
    flags = ["-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", f"-Wl,-soname,{SONAME}"]
    done = run([compiler, *flags, "-o", str(library), str(_SOURCE), "-lpthread"], timeout_s=120)
    assert done.code == 0, done.stderr
    return library


def state_text(nvml: Mapping[str, Any]) -> str:
    """The driving file's text for a mapping: host keys, and `gpu`: mappings with their own `mig` mappings.

    A value that is a list gives one line an entry (`error`, `delay_us`, `process`).
    """
    lines = _lines(nvml)
    for gpu in nvml.get("gpu", ()):
        lines += ["[gpu]", *_lines(gpu)]
        for part in gpu.get("mig", ()):
            lines += ["[mig]", *_lines(part)]
    return "\n".join(lines) + "\n"


def _lines(section: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} {entry}"
        for key, value in section.items()
        if key not in {"gpu", "mig"}
        for entry in (value if isinstance(value, list) else [value])
    ]


@dataclass(frozen=True)
class FakeNvml:
    """The library with its driving file.

    Attributes:
        library: the compiled library.
        state: the driving file; programs that run see a change at their next call.
    """

    library: Path
    state: Path

    def set(self, nvml: Mapping[str, Any]) -> None:
        """Write the driving file, in one step."""
        write_atomic(self.state, state_text(nvml))

    def environment(self) -> dict[str, str]:
        """This process's environment with which a program loads the fake instead of a real NVML."""
        return {**os.environ, "LD_LIBRARY_PATH": str(self.library.parent), VARIABLE: str(self.state)}
