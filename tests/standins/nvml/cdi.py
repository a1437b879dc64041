"""A box with fake NVIDIA GPUs on a real engine: a CDI spec that mounts the fake library, one driving file a device."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpurig.common.files import write_atomic

from standins.nvml.library import SONAME, VARIABLE, FakeNvml, state_text

_LIBRARY = f"/usr/lib/x86_64-linux-gnu/{SONAME}"
_STATE = "/etc/gpurig-fake-nvml.txt"


def write_cdi_spec(spec: Path, fake: FakeNvml, nvml: Mapping[str, Any], states: Path) -> list[str]:
    """Write a CDI spec for the cards of `nvml`: a container that is given one sees that one alone, and its device file.

    Args:
        spec: the file, in a folder that the engine reads (/etc/cdi).
        fake: the compiled library.
        nvml: what the host's NVML says.
        states: a folder for the devices' driving files; it must stay as long as containers run.

    Returns:
        The names that the spec defines: "nvidia.com/gpu=<index>", the same by UUID, and "nvidia.com/gpu=all".
    """
    cards = {str(index): [card] for index, card in enumerate(nvml["gpu"])}
    cards |= {card["uuid"]: [card] for card in nvml["gpu"]}
    cards["all"] = list(nvml["gpu"])
    devices = []
    for name, visible in cards.items():
        state = states / f"{name}.txt"
        write_atomic(state, state_text({**nvml, "gpu": visible}))
        nodes = [f"/dev/nvidia{nvml['gpu'].index(card)}" for card in visible]
        devices.append(
            {
                "name": name,
                "containerEdits": {
                    # The null device stands for the card's own: an engine makes a node only of a real one.
                    "deviceNodes": [{"path": node, "hostPath": "/dev/null"} for node in nodes],
                    "mounts": [_mount(state, _STATE)],
                },
            }
        )
    document = {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "containerEdits": {"env": [f"{VARIABLE}={_STATE}"], "mounts": [_mount(fake.library, _LIBRARY)]},
        "devices": devices,
    }
    write_atomic(spec, json.dumps(document, indent=1))
    return [f"nvidia.com/gpu={name}" for name in cards]


def _mount(source: Path, target: str) -> dict[str, Any]:
    return {"hostPath": str(source), "containerPath": target, "options": ["ro", "bind"]}
