"""Recorded machines: TOML files with what NVML and sysfs said, and what detection must make of it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpurig.provisioning.nvml import FixedNvml, NvmlDevice, NvmlReading

FOLDER = Path(__file__).parents[1] / "fixtures" / "machines"


@dataclass(frozen=True)
class Machine:
    """One machine.

    Attributes:
        name: the file's name without its ending.
        expect: what detection must find.
        nvml: the fake NVML's content; None where there is no NVIDIA driver.
        files: path below the root → content.
        links: path below the root → what the symbolic link points to.
        figures: what the exporter must read of an AMD GPU, by its PCI address; other machines have none.
    """

    name: str
    expect: Mapping[str, Any]
    nvml: Mapping[str, Any] | None
    files: Mapping[str, str]
    links: Mapping[str, str]
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def build(self, root: Path) -> Path:
        """Write the machine's files below `root` and return it."""
        for name, content in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        for name, target in self.links.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)
        return root

    def source(self) -> FixedNvml:
        """What the real binding would read from the machine's NVML; the integration tests hold it against that."""
        return FixedNvml(reading_of(self.nvml)) if self.nvml is not None else FixedNvml()


def reading_of(nvml: Mapping[str, Any]) -> NvmlReading:
    """The reading of an NVML with that content."""
    cuda = nvml.get("cuda")
    return NvmlReading(
        driver=nvml.get("driver", ""),
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
        library=nvml.get("nvml", ""),
        devices=tuple(_device(str(index), gpu) for index, gpu in enumerate(nvml.get("gpu", ()))),
    )


def _device(index: str, content: Mapping[str, Any]) -> NvmlDevice:
    major, _, minor = content.get("compute", "").partition(".")
    return NvmlDevice(
        index=index,
        uuid=content.get("uuid", ""),
        name=content.get("name", ""),
        pci=content.get("pci", ""),
        memory_bytes=content.get("memory_total"),
        compute=(int(major), int(minor)) if major else None,
        mig_enabled=bool(content.get("mig_mode")),
        instance=content.get("gpu_instance"),
        parts=tuple(_device(f"{index}:{number}", part) for number, part in enumerate(content.get("mig", ()))),
    )


def load(name: str) -> Machine:
    """The machine of that name."""
    content = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    return Machine(
        name=name,
        expect=content["expect"],
        nvml=content.get("nvml"),
        files=content.get("files", {}),
        links=content.get("links", {}),
        figures=content.get("figures", {}),
    )


def names() -> list[str]:
    """Every recorded machine."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))
