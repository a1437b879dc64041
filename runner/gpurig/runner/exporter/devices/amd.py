"""AMD's figures, from the amdgpu driver's files; no library and no permission is needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gpurig.provisioning.facts import Gpu
from gpurig.runner.exporter.devices.amd_card import AmdCard
from gpurig.runner.exporter.devices.amd_processes import AmdProcesses, GpuUsers
from gpurig.runner.exporter.devices.figures import Figures

_RENDER = "/dev/dri/renderD"


class AmdSource:
    """Reads sysfs and /proc: what changes every second at every reading, the rest every `amd_card.SLOW_S` seconds."""

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        monotonic: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            root: below which /sys and /proc lie.
            monotonic: the clock.
            say: called with one line about what cannot be seen.
        """
        self._root = root
        self._monotonic = monotonic
        self._processes = AmdProcesses(root, monotonic=monotonic, say=say)
        self._cards: dict[Path, AmdCard] = {}

    def read(self, gpus: Sequence[Gpu]) -> Mapping[str, Figures]:
        """Figures by UUID; a GPU whose device is gone, or does not answer, has a reason instead."""
        mine = [gpu for gpu in gpus if gpu.backend == "rocm"]
        if not mine:
            return {}
        users = self._processes.read(mine)
        folders = {gpu.uuid: self._folder(gpu) for gpu in mine}
        self._forget_others(set(folders.values()))
        # A split card is read once for all its partitions.
        read: dict[Path, Figures] = {}
        found = {}
        for turn, gpu in enumerate(mine, start=1):
            folder = folders[gpu.uuid]
            if folder not in read:
                sharing = [users[one.uuid] for one in mine if folders[one.uuid] == folder]
                card = self._cards.get(folder) or self._open(folder, gpu, phase=turn / len(mine))
                read[folder] = card.read(used=any(one.working for one in sharing))
            found[gpu.uuid] = _with_users(read[folder], gpu, users[gpu.uuid])
        return found

    def _open(self, folder: Path, gpu: Gpu, *, phase: float) -> AmdCard:
        card = self._cards[folder] = AmdCard(
            folder, unified=gpu.unified, arch=gpu.arch, phase=phase, monotonic=self._monotonic
        )
        return card

    def _forget_others(self, wanted: set[Path]) -> None:
        for folder in self._cards.keys() - wanted:
            del self._cards[folder]

    def _folder(self, gpu: Gpu) -> Path:
        """The device's folder in sysfs: by its address, or by its render node where an old kernel tells no address."""
        if gpu.pci_address:
            return self._root / "sys/bus/pci/devices" / gpu.pci_address
        node = next((node.path for node in gpu.nodes if node.path.startswith(_RENDER)), f"{_RENDER}?")
        return self._root / "sys/class/drm" / Path(node).name / "device"


def _with_users(figures: Figures, gpu: Gpu, users: GpuUsers) -> Figures:
    if figures.lost:
        return figures
    if not gpu.parent:
        return replace(figures, processes=users.processes(figures.utilization_ratio))
    # What is the card's alone would be counted once a partition, and a partition has no share of it that could be told.
    return replace(
        figures,
        memory_used_bytes=users.used_bytes,
        utilization_ratio=None,
        memory_utilization_ratio=None,
        power_watts=None,
        power_limit_watts=None,
        energy_joules=None,
        processes=users.processes(None),
    )
