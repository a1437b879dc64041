"""What was found out about the container engine: frozen values."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"


@dataclass(frozen=True)
class EngineFacts:
    """A Docker Engine as it described itself.

    Attributes:
        address: for example "unix:///var/run/docker.sock".
        version: "26.1.5".
        api_version: "1.45".
        cdi: it resolves CDI device names.
        cdi_devices: the names that its spec folders define, for example "nvidia.com/gpu=0".
        nvidia_runtime: NVIDIA's runtime is configured, or its hook installed, so that `--gpus device=…` works.
        cgroup_driver: "systemd" or "cgroupfs".
    """

    address: str
    version: str
    api_version: str = ""
    cdi: bool = False
    cdi_devices: tuple[str, ...] = ()
    nvidia_runtime: bool = False
    cgroup_driver: str = ""

    @property
    def socket(self) -> str:
        """The path of its socket."""
        return self.address.removeprefix("unix://")
