"""A box with fake NVIDIA GPUs on a real engine: a CDI spec that mounts the fake library, one driving file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpurig.common.files import write_atomic

from standins.nvml.library import DEFAULT_STATE, IN_CONTAINER, VARIABLE, FakeNvml, state_text, visible_parts


def write_cdi_spec(
    spec: Path,
    fake: FakeNvml,
    nvml: Mapping[str, Any],
    state: Path,
    *,
    by_uuid: bool = True,
    mounts: Mapping[Path, str] | None = None,
) -> list[str]:
    """Write a CDI spec for the cards of `nvml`: a container that is given some sees those alone, and their nodes.

    Args:
        spec: the file, in a folder that the engine reads (/etc/cdi).
        fake: the compiled library.
        nvml: what the host's NVML says.
        state: where to write the driving file for containers; it must stay as long as they run.
        by_uuid: names by UUID too, as nvidia-ctk writes them since 1.15.
        mounts: further files of the host and where containers see them: the driver's other libraries.

    Returns:
        The names that the spec defines, as nvidia-ctk gives them: "nvidia.com/gpu=<index>", for MIG parts
        "…=<index>:<part>", the same by UUID, and "nvidia.com/gpu=all".
    """
    uuids = list(visible_parts(nvml))
    numbers = dict(zip(uuids, _numbers(nvml), strict=True))
    given = {numbers[uuid]: [uuid] for uuid in uuids} | {"all": uuids}
    given |= {uuid: [uuid] for uuid in uuids if by_uuid}
    write_atomic(state, state_text(nvml))
    devices = []
    for name, visible in given.items():
        nodes = [f"/dev/nvidia{number}" for number in dict.fromkeys(numbers[one].partition(":")[0] for one in visible)]
        edits = {
            "env": [f"{VARIABLE}_ONLY_{numbers[one].replace(':', '_')}={one}" for one in visible],
            # The null device stands for the card's own: an engine makes a node only of a real one.
            "deviceNodes": [{"path": node, "hostPath": "/dev/null"} for node in nodes],
        }
        devices.append({"name": name, "containerEdits": edits})
    seen = {fake.library: IN_CONTAINER, state: DEFAULT_STATE, **(mounts or {})}
    document = {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "containerEdits": {"mounts": [_mount(source, target) for source, target in seen.items()]},
        "devices": devices,
    }
    write_atomic(spec, json.dumps(document, indent=1))
    return [f"nvidia.com/gpu={name}" for name in given]


def _numbers(nvml: Mapping[str, Any]) -> list[str]:
    return [
        name
        for index, card in enumerate(nvml["gpu"])
        for name in ([f"{index}:{part}" for part in range(len(card["mig"]))] if card.get("mig_mode") else [str(index)])
    ]


def _mount(source: Path, target: str) -> dict[str, Any]:
    return {"hostPath": str(source), "containerPath": target, "options": ["ro", "bind"]}
