"""Plans of boxes that do not exist."""

from __future__ import annotations

from typing import Any

from gpurig.provisioning.engine_facts import EngineFacts
from gpurig.provisioning.facts import DeviceNode, Gpu, HostFacts
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.plan import Box, ImageTags, Plan, plan_box
from gpurig.provisioning.settings import make_settings

from standins.memory_box import URL

ENGINE = EngineFacts(
    address="unix:///run/docker.sock",
    version="26.1",
    cdi=True,
    cdi_devices=("nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-2"),
)
RADEON = Gpu(
    "rocm",
    "amd-1",
    "Radeon RX 7900 XTX",
    "0000:0a:00.0",
    24 * 2**30,
    arch="gfx1100",
    nodes=(DeviceNode("/dev/kfd", 44), DeviceNode("/dev/dri/renderD128", 105)),
)


def plan_for(host: HostFacts, **given: Any) -> Plan:
    """The plan for a host, with settings as a user would give them."""
    settings = make_settings({"url": URL, "runner_type": "project", "target": "42", **given})
    return plan_box(
        host,
        ENGINE,
        settings,
        paths=Paths(name=settings.name),
        box=Box("ada", "12345678"),
        images=ImageTags({"cpu": "job-cpu:1", "cuda": "job-cuda:1", "rocm": "job-rocm:1"}, "exporter:1"),
    )
