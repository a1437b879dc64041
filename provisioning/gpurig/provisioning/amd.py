"""AMD GPUs: the compute topology (KFD) and the display side (drm) of sysfs, joined and judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gpurig.provisioning.amd_models import APU_TARGETS, MI300A, name_of, target_of, target_of_core
from gpurig.provisioning.amd_smi import AmdLibrary, LibraryCard
from gpurig.provisioning.drm import DrmCard, read_cards
from gpurig.provisioning.facts import DeviceNode, Gpu, Problem
from gpurig.provisioning.host import AMD, Host, PciDevice, pci_order
from gpurig.provisioning.kfd import KfdNode, gfx_major, gfx_name, read_nodes, render_gid, topology_folder

# Ryzen AI Max: a processor's GPU that is meant for this work, with up to 128 GB. Others drive the display.
_RUNNER_APUS = {"gfx1151"}
_FIRST_GFX = 9


@dataclass(frozen=True)
class AmdFacts:
    """AMD's part of the host's facts.

    Attributes:
        gpus: GPUs that jobs may use, partitions included.
        ignored: integrated and old ones, each with the reason.
        problems: what keeps GPUs from being used, and what could not be read.
    """

    gpus: tuple[Gpu, ...] = ()
    ignored: tuple[tuple[Gpu, str], ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class _Unit:
    """A GPU or partition: what KFD says of it, what drm says of its card; at least one of both is there.

    Attributes:
        siblings: how many nodes the card has; more than one is a partitioned card.
    """

    node: KfdNode | None
    card: DrmCard | None
    siblings: int = 1

    @property
    def address(self) -> str:
        return (self.node.address if self.node else "") or (self.card.address if self.card else "")

    @property
    def device_id(self) -> int:
        return (self.node.device_id if self.node else 0) or (self.card.device_id if self.card else 0)

    @property
    def target(self) -> str:
        return (
            gfx_name(self.node.gfx_version if self.node else 0)
            or target_of_core(self.card.core if self.card else None)
            or target_of(self.device_id)
        )

    @property
    def label(self) -> str:
        return f"AMD GPU at {self.address}" if self.address else f"AMD GPU of KFD node {self._number}"

    @property
    def _number(self) -> str:
        return str(self.node.number) if self.node else ""


def look_at_amd(root: Path, host: Host, library: AmdLibrary) -> AmdFacts:
    """The AMD GPUs below `root`.

    Args:
        root: where /sys, /dev and /usr/share/libdrm are.
        host: the machine around them.
        library: asked for what sysfs does not tell, and only then.
    """
    units = sorted(_join(read_nodes(root), read_cards(root)), key=lambda unit: pci_order(unit.address))
    gpus: list[Gpu] = []
    ignored: list[tuple[Gpu, str]] = []
    problems: list[Problem] = []
    for unit in units:
        gpu = _gpu(unit, root, host)
        reason = _reason_to_ignore(unit)
        if reason:
            ignored.append((gpu, reason))
            continue
        gpus.append(gpu)
        problems += _access_problems(unit, root, gpu)
    gpus = _completed(gpus, library)
    problems += [
        Problem("amd-sysfs", f"the memory of AMD GPU {gpu.pci_address or gpu.uuid} is unknown", "it gets no vram tag")
        for gpu in gpus
        if gpu.memory_bytes is None
    ]
    problems += _without_driver(host, {unit.address for unit in units})
    # Partitions of one card share what is wrong with it.
    return AmdFacts(tuple(gpus), tuple(ignored), tuple(dict.fromkeys(problems)))


def _join(nodes: tuple[KfdNode, ...], cards: tuple[DrmCard, ...]) -> list[_Unit]:
    by_address = {card.address: card for card in cards}
    by_minor = {card.render_minor: card for card in cards}
    siblings = Counter(node.address for node in nodes if node.address)
    units = []
    for node in nodes:
        # Address first: a partition's render node belongs to no PCI device.
        has_minor = node.render_minor is not None
        card = by_address.get(node.address) or (by_minor.get(node.render_minor) if has_minor else None)
        units.append(_Unit(node, card, siblings.get(node.address, 1)))
    seen = {unit.card.address for unit in units if unit.card}
    return units + [_Unit(None, card) for card in cards if card.address not in seen]


def _is_apu(unit: _Unit) -> bool:
    """Whether it shares the system's memory; its size does not tell (carve-outs go from 64 MiB to many GiB).

    For an APU, KFD's memory bank is the GTT; for a card it is the card's own memory.
    """
    if unit.target in APU_TARGETS or unit.device_id == MI300A:
        return True
    bank = unit.node.bank_bytes if unit.node else None
    vram, gtt = (unit.card.vram_bytes, unit.card.gtt_bytes) if unit.card else (None, None)
    return bank is not None and bank == gtt and vram is not None and bank != vram


def _memory(unit: _Unit) -> int | None:
    """Memory that a job can use on it, in bytes."""
    bank = unit.node.bank_bytes if unit.node else None
    vram, gtt = (unit.card.vram_bytes, unit.card.gtt_bytes) if unit.card else (None, None)
    if _is_apu(unit) and unit.device_id != MI300A:
        return vram + gtt if vram and gtt else bank or gtt
    # A partition's bank is its share; drm shows every partition the whole card's memory.
    return bank or (vram // unit.siblings if vram else None)


def _reason_to_ignore(unit: _Unit) -> str:
    if unit.card and unit.card.driver not in {"", "amdgpu"}:
        return f"driven by {unit.card.driver}, not by amdgpu"
    target = unit.target
    if not target:
        return "its gfx target is unknown"
    if gfx_major(target) < _FIRST_GFX:
        return f"{target} is older than gfx900"
    if _is_apu(unit) and target not in _RUNNER_APUS and unit.device_id != MI300A:
        return f"integrated in the processor ({target})"
    return ""


def _gpu(unit: _Unit, root: Path, host: Host) -> Gpu:
    node, card = unit.node, unit.card
    identity = (f"{node.unique_id:016x}" if node and node.unique_id else "") or (card.unique_id if card else "")
    identity = identity or unit.address or f"amd-node-{node.number if node else ''}"
    part = node is not None and unit.siblings > 1
    minor = node.render_minor if node and node.render_minor is not None else card.render_minor if card else None
    paths = ["/dev/kfd"] if node else []
    paths += [f"/dev/dri/renderD{minor}"] if minor is not None else []
    name = (card.product_name if card else "") or name_of(root, unit.device_id, card.revision if card else None)
    return Gpu(
        backend="rocm",
        uuid=f"{identity}-{node.partition}" if part and node else identity,
        name=name,
        pci_address=unit.address,
        memory_bytes=_memory(unit),
        unified=_is_apu(unit),
        arch=unit.target,
        driver=host.amdgpu_module,
        nodes=tuple(DeviceNode(path, render_gid(root, path)) for path in paths),
        parent=identity if part else "",
        index=str(node.number) if node else "",
    )


def _access_problems(unit: _Unit, root: Path, gpu: Gpu) -> list[Problem]:
    if unit.node is None:
        message = f"{unit.label} has no KFD node, so ROCm cannot use it"
        hint = (
            "see dmesg for kfd lines (a slot without PCIe atomics is one cause)"
            if topology_folder(root)
            else "use a kernel with CONFIG_HSA_AMD, and see dmesg for kfd lines"
        )
        return [Problem("amd-sysfs", message, hint, unusable=True)]
    if not (root / "dev").is_dir():
        return []
    absent = [node.path for node in gpu.nodes if node.gid is None]
    return [
        Problem(
            "amd-sysfs",
            f"{unit.label}: {path} does not exist",
            "run it where the host's /dev is visible; on the host: modprobe amdgpu, and see dmesg for kfd lines",
            unusable=True,
        )
        for path in absent
    ]


def _completed(gpus: list[Gpu], library: AmdLibrary) -> list[Gpu]:
    """The GPUs with what the vendor's library adds; it is loaded only where something is missing."""
    if all(gpu.name and gpu.memory_bytes is not None for gpu in gpus):
        return gpus
    cards: Mapping[str, LibraryCard] = library.cards()
    return [
        replace(
            gpu,
            name=gpu.name or card.name,
            # The library tells the whole card's memory, which is no partition's.
            memory_bytes=card.memory_bytes if gpu.memory_bytes is None and not gpu.parent else gpu.memory_bytes,
        )
        if (card := cards.get(gpu.pci_address))
        else gpu
        for gpu in gpus
    ]


def _without_driver(host: Host, seen: set[str]) -> list[Problem]:
    return [
        problem
        for device in host.pci
        if device.vendor == AMD and device.address not in seen and (problem := _driver_problem(device))
    ]


def _driver_problem(device: PciDevice) -> Problem | None:
    target = target_of(device.device)
    if device.driver == "vfio-pci":
        message = f"AMD GPU at {device.address} is reserved for a virtual machine (vfio-pci)"
        return Problem("amd-sysfs", message, "bind it to amdgpu if this host shall use it")
    # An integrated or old one would not be used with its driver either.
    if target in APU_TARGETS - _RUNNER_APUS or (target and gfx_major(target) < _FIRST_GFX):
        return None
    if device.driver not in {"", "amdgpu"}:
        return None
    state = "has no driver" if not device.driver else "is bound to amdgpu, which does not show it"
    hint = "modprobe amdgpu, and see dmesg; a new card may need a newer kernel and linux-firmware"
    return Problem("amd-sysfs", f"AMD GPU at {device.address} {state}", hint, unusable=True)
