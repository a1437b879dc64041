"""Which devices a container gets: decided here once, rendered for config.toml and for the Docker SDK alike."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from gpurig.common.errors import PrerequisiteError
from gpurig.provisioning.engine_facts import EngineFacts
from gpurig.provisioning.facts import Gpu

NVIDIA_CDI = "nvidia.com/gpu"
AMD_CDI = "amd.com/gpu"
# Any image, whichever registry it is from: `**` stands for folders, none among them (bmatcuk/doublestar).
ANY_IMAGE = "**/*"


@dataclass(frozen=True)
class Wiring:
    """The device settings of a container.

    Attributes:
        driver: "cdi", or "" for the engine's own GPU driver (NVIDIA's runtime or hook).
        device_ids: CDI names with driver "cdi", else GPU UUIDs; empty for no device request.
        devices: paths of device files; never CDI names, because the runner appends `:rwm` to them
            (gitlab-org/gitlab-runner issue 37365).
        group_add: numeric gids: names differ between images.
    """

    driver: str = ""
    device_ids: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()

    @property
    def gpus(self) -> str:
        """The runner's `gpus` setting, in the syntax of Docker's `--gpus`; "" for none.

        Docker reads it as one CSV record of `key=value`, so several ids of one `device` need quotes around the field
        (docker/cli, opts/gpus.go).
        """
        if not self.device_ids:
            return ""
        device = f"device={','.join(self.device_ids)}"
        fields = [f"driver={self.driver}"] if self.driver else []
        return ",".join([*fields, f'"{device}"' if len(self.device_ids) > 1 else device])

    def config_keys(self) -> dict[str, Any]:
        """The keys of `[runners.docker]` for a job's own container; only those that are set."""
        keys: dict[str, Any] = {}
        if self.gpus:
            keys["gpus"] = self.gpus
        if self.devices:
            keys["devices"] = list(self.devices)
        if self.group_add:
            keys["group_add"] = list(self.group_add)
        return keys

    def service_config_keys(self) -> dict[str, Any]:
        """The keys of `[runners.docker]` that give a job's services the same; only those that are set.

        gitlab-runner knows both from 17.10 on (common/config.go: ServiceGpus, ServicesDevices), and passes over keys
        that it does not know. Device files go by the pattern of a service's image; groups it gives to no service, so
        that these open an AMD card as root or with the card's group as their own.
        """
        keys: dict[str, Any] = {}
        if self.gpus:
            keys["service_gpus"] = self.gpus
        if self.devices:
            keys["services_devices"] = {ANY_IMAGE: list(self.devices)}
        return keys

    def sdk_arguments(self) -> dict[str, Any]:
        """The same as keyword arguments of docker-py's `containers.create`; only those that are set."""
        arguments: dict[str, Any] = {}
        if self.device_ids:
            from docker.types import DeviceRequest  # noqa: PLC0415 - heavy

            # The capability is what the CLI's parser adds; an engine refuses a request without one.
            arguments["device_requests"] = [
                DeviceRequest(driver=self.driver, device_ids=list(self.device_ids), capabilities=[["gpu"]])
            ]
        if self.devices:
            arguments["devices"] = [f"{path}:{path}:rwm" for path in self.devices]
        if self.group_add:
            arguments["group_add"] = list(self.group_add)
        return arguments


def reload_takes_gpus(wirings: Sequence[Wiring], engine: EngineFacts) -> bool:
    """Whether `systemctl daemon-reload` takes GPUs away from containers that run (nvidia-docker issue 1730).

    NVIDIA's hook opens the devices behind runc's back, and systemd as the cgroup driver resets them at a reload.
    """
    return engine.cgroup_driver == "systemd" and any(one.device_ids and one.driver != "cdi" for one in wirings)


def join(wirings: Sequence[Wiring]) -> Wiring:
    """One wiring that gives a container what all of `wirings` give: for the exporter, which sees every GPU.

    Raises:
        PrerequisiteError: two of them need different GPU drivers of the engine, which one container cannot have.
    """
    drivers = {wiring.driver for wiring in wirings if wiring.device_ids}
    if len(drivers) > 1:
        raise PrerequisiteError(
            "this box mixes GPUs that the engine reaches by CDI with GPUs that it reaches by NVIDIA's runtime",
            hint="write a CDI spec for NVIDIA too: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
        )
    return Wiring(
        driver=next(iter(drivers), ""),
        device_ids=tuple(dict.fromkeys(name for wiring in wirings for name in wiring.device_ids)),
        devices=tuple(dict.fromkeys(path for wiring in wirings for path in wiring.devices)),
        group_add=tuple(dict.fromkeys(gid for wiring in wirings for gid in wiring.group_add)),
    )


def wire(gpus: Sequence[Gpu], engine: EngineFacts, *, beside: Sequence[Gpu] = ()) -> Wiring:
    """The wiring that gives a container exactly `gpus`.

    Args:
        gpus: the GPUs of one runner entry, all of one backend; none for a CPU box.
        engine: what the engine can do.
        beside: every GPU that was found on the host, in PCI order; `gpus` where empty.

    Raises:
        PrerequisiteError: the engine has no way to hand these GPUs to a container.
    """
    if not gpus:
        return Wiring()
    same_vendor = [gpu for gpu in (beside or gpus) if gpu.backend == gpus[0].backend]
    if gpus[0].backend == "rocm":
        return _wire_amd(gpus, engine, same_vendor)
    return _wire_nvidia(gpus, engine, same_vendor)


def _wire_nvidia(gpus: Sequence[Gpu], engine: EngineFacts, host: Sequence[Gpu]) -> Wiring:
    names = _cdi_names(gpus, engine, NVIDIA_CDI, host)
    if names:
        return Wiring(driver="cdi", device_ids=names)
    if engine.nvidia_runtime:
        return Wiring(device_ids=tuple(gpu.uuid for gpu in gpus))
    if engine.cdi:
        raise PrerequisiteError(
            "the engine knows CDI, but no CDI spec names this NVIDIA GPU",
            hint="install nvidia-container-toolkit, then: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
        )
    raise PrerequisiteError(
        "the engine cannot give NVIDIA GPUs to containers",
        hint="install nvidia-container-toolkit, then: nvidia-ctk runtime configure --runtime=docker; restart docker",
    )


def _wire_amd(gpus: Sequence[Gpu], engine: EngineFacts, host: Sequence[Gpu]) -> Wiring:
    # Device files work on every engine. A CDI spec is the only way where detection found no files (a VM's passthrough).
    if all(gpu.nodes for gpu in gpus):
        nodes = [node for gpu in gpus for node in gpu.nodes]
        return Wiring(
            devices=tuple(dict.fromkeys(node.path for node in nodes)),
            group_add=tuple(dict.fromkeys(str(node.gid) for node in nodes if node.gid is not None)),
        )
    names = _cdi_names(gpus, engine, AMD_CDI, host)
    if names:
        return Wiring(driver="cdi", device_ids=names)
    raise PrerequisiteError(
        "no device file of this AMD GPU was found, and no CDI spec names it",
        hint="check that /dev/kfd and /dev/dri/renderD* exist: the amdgpu driver makes them",
    )


def _cdi_names(gpus: Sequence[Gpu], engine: EngineFacts, kind: str, host: Sequence[Gpu]) -> tuple[str, ...]:
    """The specs' names for `gpus`: by UUID where they have it, else by number, else "all" for all; () where unnamed."""
    if not engine.cdi:
        return ()
    known = {name.removeprefix(f"{kind}=") for name in engine.cdi_devices if name.startswith(f"{kind}=")}
    for names in ([gpu.uuid for gpu in gpus], _numbers(gpus, known, host)):
        if names and known.issuperset(names):
            return tuple(f"{kind}={name}" for name in names)
    # A spec that names cards, but not these, is about other hardware than was found: its "all" would be a guess.
    if known == {"all"} and len(gpus) == len(host):
        return (f"{kind}=all",)
    return ()


def _numbers(gpus: Sequence[Gpu], known: Collection[str], host: Sequence[Gpu]) -> list[str]:
    """What a spec calls `gpus` where it counts; [] where that cannot be told for each of them.

    nvidia-ctk uses NVML's number, and "card:part" for MIG (NVIDIA/nvidia-container-toolkit, nvcdi, device namers). A
    place in a list is not it: a card that NVML cannot open keeps its number and is in no list of ours. AMD's tool
    counts the cards that the amdgpu driver holds in PCI order, and sysfs has no such number: a place is taken for it
    only where the spec counts as many cards as were found.
    """
    if gpus[0].backend == "cuda":
        numbers = [gpu.index for gpu in gpus]
        return numbers if all(numbers) else []
    counted = [name for name in known if name.isdigit()]
    if len(counted) != len(host) or not all(gpu in host for gpu in gpus):
        return []
    return [str(host.index(gpu)) for gpu in gpus]
