"""NVIDIA GPUs: NVML's reading, judged against what the PCI bus shows."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from gpurig.provisioning.facts import Gpu, Problem
from gpurig.provisioning.host import NVIDIA, Host, PciDevice, pci_address
from gpurig.provisioning.nvml import (
    DRIVER_NOT_LOADED,
    LIBRARY_NOT_FOUND,
    NO_PERMISSION,
    UNKNOWN,
    VERSION_MISMATCH,
    NvmlDevice,
    NvmlFailure,
    NvmlReading,
)

# GPUs that share the system's memory: Jetson Nano, TX2, Xavier, Orin, Thor (10.1 became 11.0 in CUDA 13), GB10.
_UNIFIED_COMPUTE = {(5, 3), (6, 2), (7, 2), (8, 7), (10, 1), (11, 0), (12, 1)}
_UNIFIED_NAME = re.compile(r"\b(GB10|Orin|Xavier|Thor|Tegra|nvgpu)\b", re.IGNORECASE)

_INSTALL = "install NVIDIA's driver with its libraries: gpurig doctor names the packages"
_LOAD = "load it (modprobe nvidia); if that fails, see dmesg: Secure Boot, nouveau, or a kernel without its module"
_RELOAD = (
    "the driver was updated while its old module runs: reboot, or stop what uses the GPU and run: "
    "rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia && modprobe nvidia"
)
_UNKNOWN = (
    "in a container: it lost its GPU (systemctl daemon-reload on the host does that), start it again; "
    "on the host: see dmesg for NVRM and Xid lines"
)


@dataclass(frozen=True)
class NvidiaFacts:
    """NVIDIA's part of the host's facts.

    Attributes:
        gpus: usable GPUs, parts included.
        problems: what keeps others from being used, and what could not be read.
    """

    gpus: tuple[Gpu, ...] = ()
    problems: tuple[Problem, ...] = ()


def judge(reading: NvmlReading, host: Host) -> NvidiaFacts:
    """What NVML's reading means on this host: pure."""
    cards = tuple(device for device in host.pci if device.vendor == NVIDIA)
    if reading.failure:
        return NvidiaFacts(problems=_without_nvml(reading, host, cards))
    reading = _with_address_of_lost_card(reading, cards)
    gpus: list[Gpu] = []
    problems: list[Problem] = []
    for device in reading.devices:
        found, wrong = _judge_device(device, reading, host)
        gpus += found
        problems += wrong
    problems += _missing(reading, cards)
    if not reading.devices and not cards:
        problems.append(Problem("nvml", "the NVIDIA driver runs, but it has no GPU", _no_card_hint(host)))
    return NvidiaFacts(tuple(gpus), tuple(problems))


def _no_card_hint(host: Host) -> str:
    if host.platform == "wsl2":
        return "update NVIDIA's driver on Windows and run: wsl --update"
    return "if there should be one: check its seat and power, or the virtual machine's PCI passthrough"


def _without_nvml(reading: NvmlReading, host: Host, cards: tuple[PciDevice, ...]) -> tuple[Problem, ...]:
    failure = reading.failure
    if failure is None:
        return ()
    where = ", ".join(card.address for card in cards)
    elsewhere = [card for card in cards if card.driver in {"vfio-pci", "nouveau"}]
    if cards and len(elsewhere) == len(cards) and failure.code in {LIBRARY_NOT_FOUND, DRIVER_NOT_LOADED}:
        return tuple(_held_by_other(card) for card in cards)
    if failure.code == LIBRARY_NOT_FOUND:
        return _without_library(host, where)
    message, hint = _init_failure(failure, reading, host, where)
    # Without a card on the bus, a library that finds no driver takes nothing away from anybody.
    unusable = bool(cards) or failure.code != DRIVER_NOT_LOADED or bool(host.nvidia_module)
    return (Problem("nvml", message, hint, unusable=unusable),)


def _without_library(host: Host, where: str) -> tuple[Problem, ...]:
    if host.nvidia_module:
        message = f"NVIDIA's kernel module {host.nvidia_module} is loaded, but libnvidia-ml.so.1 is not found"
        hint = "install the driver's libraries of the same version (Debian: libnvidia-ml1, Ubuntu: nvidia-utils-…)"
        return (Problem("nvml", message, hint, unusable=True),)
    if where:
        return (Problem("nvml", f"NVIDIA GPU at {where}, but its driver is not installed", _INSTALL, unusable=True),)
    if host.platform == "jetson":
        message = "this is a Jetson, but libnvidia-ml.so.1 is not found"
        hint = "JetPack 6 (driver 540) and newer bring it; older ones have no NVML"
        return (Problem("nvml", message, hint, unusable=True),)
    if host.platform == "wsl2":
        message = "WSL2 offers a GPU (/dev/dxg), but libnvidia-ml.so.1 is not found"
        hint = "NVIDIA: install its driver on Windows, run wsl --update, and keep /usr/lib/wsl/lib in ld.so.conf"
        return (Problem("nvml", message, hint),)
    return ()


def _init_failure(failure: NvmlFailure, reading: NvmlReading, host: Host, where: str) -> tuple[str, str]:
    words = f"NVML does not start: {failure.words}"
    if failure.code == VERSION_MISMATCH:
        versions = ", ".join(
            part
            for part in (
                f"library {reading.library}" if reading.library else "",
                f"kernel module {host.nvidia_module}" if host.nvidia_module else "",
            )
            if part
        )
        return words + (f" ({versions})" if versions else ""), _RELOAD
    if failure.code == DRIVER_NOT_LOADED:
        return _not_loaded(host, where)
    if failure.code == NO_PERMISSION:
        return words, "run it as a user who may open /dev/nvidiactl, or as root"
    if failure.code == UNKNOWN:
        return (
            words,
            _UNKNOWN,
        )
    return words, "see dmesg for NVRM and Xid lines, and try nvidia-smi"


def _not_loaded(host: Host, where: str) -> tuple[str, str]:
    if host.nvidia_module:
        message = f"NVML finds no driver, although kernel module {host.nvidia_module} is loaded"
        return message, "check that /dev/nvidiactl and /dev/nvidia0 exist (nvidia-modprobe makes them), and see dmesg"
    if where:
        return f"NVIDIA GPU at {where}, but its kernel module is not loaded", _LOAD
    return "NVIDIA's driver is installed, but there is no NVIDIA GPU", _no_card_hint(host)


def _held_by_other(card: PciDevice) -> Problem:
    if card.driver == "vfio-pci":
        message = f"NVIDIA GPU at {card.address} is reserved for a virtual machine (vfio-pci)"
        return Problem("nvml", message, "bind it to the nvidia driver if this host shall use it")
    message = f"NVIDIA GPU at {card.address} is driven by nouveau, which cannot compute"
    return Problem("nvml", message, f"{_INSTALL} and reboot", unusable=True)


def _with_address_of_lost_card(reading: NvmlReading, cards: tuple[PciDevice, ...]) -> NvmlReading:
    """NVML names no address for a card without a handle; where one card is left over on the bus, it is that."""
    listed = {pci_address(device.pci) for device in reading.devices}
    left = [card for card in cards if card.address not in listed and card.driver in {"", "nvidia"}]
    lost = [device for device in reading.devices if device.failure and not device.pci]
    if len(left) != 1 or len(lost) != 1:
        return reading
    found = tuple(replace(device, pci=left[0].address) if device is lost[0] else device for device in reading.devices)
    return replace(reading, devices=found)


def _missing(reading: NvmlReading, cards: tuple[PciDevice, ...]) -> list[Problem]:
    """Cards on the bus that NVML does not list."""
    listed = {pci_address(device.pci) for device in reading.devices}
    # A lost card has no address; its own problem is already told.
    nameless = sum(1 for device in reading.devices if not device.pci)
    absent = [card for card in cards if card.address not in listed]
    problems = [_held_by_other(card) for card in absent if card.driver in {"vfio-pci", "nouveau"}]
    unexplained = [card for card in absent if card.driver not in {"vfio-pci", "nouveau"}]
    return problems + [
        Problem(
            "nvml",
            f"NVIDIA GPU at {card.address} is on the PCI bus, but the driver does not list it",
            "see dmesg for NVRM lines: it may have fallen off the bus, lack power, or be too old for this driver",
            unusable=True,
        )
        for card in unexplained[nameless:]
    ]


def _judge_device(device: NvmlDevice, reading: NvmlReading, host: Host) -> tuple[list[Gpu], list[Problem]]:
    address = pci_address(device.pci)
    label = f"NVIDIA GPU at {address}" if address else f"NVIDIA GPU with NVML's number {device.index}"
    if device.failure:
        return [], [
            Problem(
                "nvml",
                f"{label} cannot be used: {device.failure.words}",
                f"see dmesg for Xid lines; reset it (nvidia-smi --gpu-reset -i {device.index}) or reboot",
                unusable=True,
            )
        ]
    problems = [_refused(label, field, failure) for field, failure in device.refused]
    if device.mig_enabled:
        gpus, wrong = _judge_parts(device, label, reading)
        return gpus, problems + wrong
    unified = device.compute in _UNIFIED_COMPUTE or bool(_UNIFIED_NAME.search(device.name))
    memory = device.memory_bytes
    if memory is None and unified:
        memory = host.memory_bytes
    if memory is None:
        problems.append(_no_memory(label))
    return [_gpu(device, reading, memory=memory, unified=unified)], problems


def _judge_parts(card: NvmlDevice, label: str, reading: NvmlReading) -> tuple[list[Gpu], list[Problem]]:
    gpus = []
    problems = []
    for part in card.parts:
        name = f"MIG part {part.index}"
        if part.failure:
            message = f"{name} cannot be used: {part.failure.words}"
            problems.append(Problem("nvml", message, "see dmesg for Xid lines", unusable=True))
            continue
        problems += [_refused(name, field, failure) for field, failure in part.refused]
        if part.memory_bytes is None:
            problems.append(_no_memory(name))
        gpus.append(_gpu(part, reading, memory=part.memory_bytes, card=card))
    problems += _shared_memory(card)
    if not card.parts:
        message = f"{label} is in MIG mode and has no parts, so nothing can run on it"
        hint = f"make parts (nvidia-smi mig -cgi …-C) or leave MIG mode (nvidia-smi -i {card.index} -mig 0)"
        problems.append(Problem("nvml", message, hint, unusable=True))
    return gpus, problems


def _shared_memory(card: NvmlDevice) -> list[Problem]:
    """Compute instances of one GPU instance divide its processors, not its memory."""
    owners: dict[int, list[str]] = {}
    for part in card.parts:
        if part.instance is not None:
            owners.setdefault(part.instance, []).append(part.index)
    return [
        Problem(
            "nvml",
            f"MIG parts {', '.join(parts)} share the memory of GPU instance {instance}: each is tagged with all of it",
            "give each part a GPU instance of its own, or run one job at a time on them",
        )
        for instance, parts in owners.items()
        if len(parts) > 1
    ]


def _gpu(
    device: NvmlDevice,
    reading: NvmlReading,
    *,
    memory: int | None,
    unified: bool = False,
    card: NvmlDevice | None = None,
) -> Gpu:
    owner = card or device
    address = pci_address(owner.pci)
    return Gpu(
        backend="cuda",
        # A card may refuse to tell its UUID; the address is the next best identity.
        uuid=device.uuid or f"nvidia-{address or 'gpu'}-{device.index}",
        name=device.name or owner.name,
        pci_address="" if address == "0000:00:00.0" else address,
        memory_bytes=memory,
        unified=unified,
        arch=f"sm-{owner.compute[0]}{owner.compute[1]}" if owner.compute else "",
        driver=reading.driver,
        mig=card is not None,
        parent=(card.uuid or address) if card else "",
        index=device.index,
    )


def _refused(label: str, field: str, failure: NvmlFailure) -> Problem:
    hint = "see dmesg for NVRM and Xid lines"
    return Problem("nvml", f"{label}: its {field} cannot be read: {failure.words}", hint)


def _no_memory(label: str) -> Problem:
    return Problem("nvml", f"{label}: the driver does not tell its memory", "it gets no vram tag; try a newer driver")
