"""Builds the fake library and writes the file that drives it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpurig.common.files import write_atomic
from gpurig.common.process import run

from standins.missing import missing

SONAME = "libnvidia-ml.so.1"
VARIABLE = "GPURIG_FAKE_NVML"
# What the library reads where the variable is not set; and where a container's loader finds the library.
DEFAULT_STATE = "/etc/gpurig-fake-nvml.txt"
IN_CONTAINER = f"/usr/lib/x86_64-linux-gnu/{SONAME}"
_SOURCE = Path(__file__).with_name("fake_nvml.c")


def build_library(folder: Path, source: Path = _SOURCE, soname: str = SONAME) -> Path:
    """Compile a fake library, NVML's by default, into `folder`; skips the test where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        missing(f"no C compiler (cc) to build the fake {soname} with", "GPURIG_REQUIRE_CC")
    library = folder / soname
    flags = ["-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", f"-Wl,-soname,{soname}"]
    done = run([compiler, *flags, "-o", str(library), str(source), "-lpthread"], timeout_s=120)
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


def visible_parts(nvml: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a container may be given, by UUID: each card alone, and of a split card each part alone in its card.

    The order is NVML's; a split card is not there as a whole, as in the specs that nvidia-ctk writes.
    """
    found: dict[str, dict[str, Any]] = {}
    for card in nvml["gpu"]:
        if card.get("mig_mode"):
            found |= {part["uuid"]: {**card, "mig": [part]} for part in card.get("mig", ())}
        else:
            found[card["uuid"]] = dict(card)
    return found


def only(nvml: Mapping[str, Any], uuids: Iterable[str]) -> dict[str, Any]:
    """What NVML says in a container that was given these cards and parts.

    Raises:
        KeyError: there is none of that UUID.
    """
    cards: dict[str, dict[str, Any]] = {}
    parts = visible_parts(nvml)
    for uuid in uuids:
        card = parts[uuid]
        known = cards.setdefault(card["uuid"], {**card, "mig": []})
        known["mig"] = [*known["mig"], *card.get("mig", ())]
    return {**nvml, "gpu": list(cards.values())}


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
