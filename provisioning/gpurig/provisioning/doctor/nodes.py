"""AMD's device files: there, and open to the group that containers join."""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpurig.provisioning.distribution import Command
from gpurig.provisioning.doctor.finding import Finding
from gpurig.provisioning.facts import Gpu

_KFD = "/dev/kfd"
_GROUP_RW = stat.S_IRGRP | stat.S_IWGRP
_OTHER_RW = stat.S_IROTH | stat.S_IWOTH


@dataclass(frozen=True)
class NodeSeen:
    """A device file.

    Attributes:
        path: the file.
        mode: its permission bits; None where it is not there.
        gid: its group's number.
        group: its group's name; "" where the number has none.
        usable: this process may read and write it.
    """

    path: str
    mode: int | None = None
    gid: int | None = None
    group: str = ""
    usable: bool = False


def look(paths: Sequence[str]) -> tuple[NodeSeen, ...]:
    """Look at the files; none is opened.

    Raises:
        OSError: one is there and cannot be looked at.
    """
    return tuple(_look(path) for path in paths)


def _look(path: str) -> NodeSeen:
    try:
        seen = Path(path).stat()
    except FileNotFoundError:
        return NodeSeen(path)
    try:
        group = grp.getgrgid(seen.st_gid).gr_name
    except KeyError:
        group = ""
    return NodeSeen(
        path=path,
        mode=stat.S_IMODE(seen.st_mode),
        gid=seen.st_gid,
        group=group,
        usable=os.access(path, os.R_OK | os.W_OK),
    )


def paths_of(gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """The device files of the AMD GPUs, each once."""
    return tuple(dict.fromkeys(node.path for gpu in gpus if gpu.backend == "rocm" for node in gpu.nodes))


def judge(nodes: Sequence[NodeSeen], gpus: Sequence[Gpu], *, user: str) -> tuple[Finding, ...]:
    """The finding on the device files.

    Args:
        nodes: as they were seen.
        gpus: the AMD GPUs that jobs are meant to get; detection's own problems tell of files that it missed.
        user: who runs gpurig.
    """
    if not any(gpu.backend == "rocm" for gpu in gpus):
        return (Finding("amd devices", "skipped", "no AMD GPU"),)
    if not nodes:
        message = "no device files are known: the AMD GPUs can only be reached by CDI"
        return (Finding("amd devices", "warning", message, needed=f"{_KFD} and /dev/dri/renderD*"),)
    absent = next((node for node in nodes if node.mode is None), None)
    if absent is not None:
        return (
            Finding(
                "amd devices",
                "failed",
                f"{absent.path} is not there",
                found="missing",
                needed=absent.path,
                commands=(Command(("modprobe", "amdgpu")),),
                hint="if that fails, see dmesg: the amdgpu driver makes these files",
            ),
        )
    closed = [node for node in nodes if not _open_to_group(node)]
    if closed:
        node = closed[0]
        return (
            Finding(
                "amd devices",
                "failed",
                f"{node.path} is closed to its group: a job that is not root cannot use the GPU",
                found=f"{_mode(node)} {node.group or node.gid}",
                needed="0660 render",
                commands=tuple(
                    command
                    for one in closed
                    for command in (Command(("chgrp", "render", one.path)), Command(("chmod", "0660", one.path)))
                ),
                hint='to keep it over a reboot, a udev rule: SUBSYSTEM=="kfd", GROUP="render", MODE="0660"',
            ),
        )
    found = ", ".join(f"{node.path} {_mode(node)} {node.group or node.gid}" for node in nodes)
    if not all(node.usable for node in nodes):
        groups = ",".join(dict.fromkeys(node.group or str(node.gid) for node in nodes if not node.usable))
        return (
            Finding(
                "amd devices",
                "warning",
                f"{user} may not use the AMD GPUs; containers may, jobs without a container may not",
                found=found,
                commands=(Command(("usermod", "-aG", groups, user), by_hand=True),),
                hint="then log in again",
            ),
        )
    return (Finding("amd devices", "ok", "open to containers", found=found),)


def _open_to_group(node: NodeSeen) -> bool:
    mode = node.mode or 0
    # Group 0 is root's own: joining it would give a container more than a GPU.
    return mode & _OTHER_RW == _OTHER_RW or (mode & _GROUP_RW == _GROUP_RW and node.gid != 0)


def _mode(node: NodeSeen) -> str:
    return f"{node.mode or 0:04o}"
