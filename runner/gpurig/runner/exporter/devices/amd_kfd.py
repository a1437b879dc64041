"""Which processes compute on AMD GPUs: the kernel's own list, /sys/class/kfd/kfd/proc.

A folder for each process that has opened /dev/kfd (ROCm), by its pid in the host's own namespace whatever container it
is in, readable for everybody. In it are, for each GPU that it has opened, by KFD's number for the GPU (kfd_process.c):

- vram_<gpu>: bytes that it has allocated on the GPU;
- stats_<gpu>/cu_occupancy: compute units that its work occupies at this moment; gfx9 alone (Vega, Instinct) has it;
- queues/<n>/gpuid: the GPU of each of its queues;
- context_<n>: a further address space of its own, with the same files in it.

sdma_<gpu>, the time that it copied, is not read: for each reading the kernel has a worker enter the process' memory.
Neither is queues/<n>/guid, for which the kernel writes an error into its log.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from gpurig.provisioning.kfd import topology_folder
from gpurig.runner.exporter.devices.amd_files import list_names, read_amount

# The second is what the first links to.
_PLACES = ("sys/class/kfd/kfd/proc", "sys/devices/virtual/kfd/kfd/proc")


@dataclass(frozen=True)
class KfdUse:
    """What a process has of one GPU.

    Attributes:
        memory_bytes: what it has allocated there; None where that cannot be read.
        occupied_units: compute units that it occupies now; None where the kernel does not tell.
    """

    memory_bytes: int | None
    occupied_units: int | None = None


@dataclass(frozen=True)
class KfdPart:
    """What KFD calls a GPU or a partition of one.

    Attributes:
        gpu_id: KFD's number for it.
        used_bytes: memory in use there; None on kernels without that file.
    """

    gpu_id: int
    used_bytes: int | None


def read_part(root: Path, node: str) -> KfdPart | None:
    """The GPU of a node of the topology; None where there is none, or the container has no access to it.

    Args:
        root: below which /sys lies.
        node: the node's number, `Gpu.index`.
    """
    nodes = topology_folder(root)
    if nodes is None or not node.isdecimal():
        return None
    gpu_id = read_amount(f"{nodes}/{node}/gpu_id")
    # CPU nodes have 0.
    return KfdPart(gpu_id, read_amount(f"{nodes}/{node}/mem_banks/0/used_memory")) if gpu_id else None


def read_uses(root: Path, gpu_ids: Collection[int]) -> Mapping[int, Mapping[int, KfdUse]] | None:
    """What each process has of each GPU, by KFD's number and pid; None where the kernel has no such list.

    A process that has opened a GPU, as ROCm does with all it sees, and neither holds memory nor has a queue there, does
    not use it.
    """
    folder = next((path for place in _PLACES if (path := root / place).is_dir()), None)
    if folder is None:
        return None
    found: dict[int, dict[int, KfdUse]] = {gpu_id: {} for gpu_id in gpu_ids}
    for name in list_names(str(folder)):
        if not (name.isascii() and name.isdecimal()):
            continue
        for gpu_id, use in _process(f"{folder}/{name}", gpu_ids).items():
            found[gpu_id][int(name)] = use
    return found


def _process(folder: str, gpu_ids: Collection[int]) -> dict[int, KfdUse]:
    found: dict[int, KfdUse] = {}
    names = list_names(folder)
    with_queue: set[int] | None = None
    for gpu_id in gpu_ids:
        if f"vram_{gpu_id}" not in names:
            continue
        memory = read_amount(f"{folder}/vram_{gpu_id}")
        if not memory:
            with_queue = _queues(folder) if with_queue is None else with_queue
            if gpu_id not in with_queue:
                continue
        occupied = read_amount(f"{folder}/stats_{gpu_id}/cu_occupancy")
        found[gpu_id] = KfdUse(memory, occupied)
    for name in names:
        if name.startswith("context_"):
            for gpu_id, use in _process_context(f"{folder}/{name}", gpu_ids).items():
                found[gpu_id] = _sum(found[gpu_id], use) if gpu_id in found else use
    return found


def _process_context(folder: str, gpu_ids: Collection[int]) -> dict[int, KfdUse]:
    memory = {gpu_id: read_amount(f"{folder}/vram_{gpu_id}") for gpu_id in gpu_ids}
    return {
        gpu_id: KfdUse(held, read_amount(f"{folder}/stats_{gpu_id}/cu_occupancy"))
        for gpu_id, held in memory.items()
        if held
    }


def _queues(folder: str) -> set[int]:
    """The GPUs on which the process has queues."""
    numbers = (read_amount(f"{folder}/queues/{queue}/gpuid") for queue in list_names(f"{folder}/queues"))
    return {number for number in numbers if number is not None}


def _sum(one: KfdUse, other: KfdUse) -> KfdUse:
    return KfdUse(_add(one.memory_bytes, other.memory_bytes), _add(one.occupied_units, other.occupied_units))


def _add(one: int | None, other: int | None) -> int | None:
    if one is None:
        return other
    return one if other is None else one + other
