"""From a process to the container that it runs in: the kernel's /proc/<pid>/cgroup, read in one place.

Formats: cgroups(7) for the lines; runc's systemd and cgroupfs drivers, containerd, CRI-O and Podman for the names.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

# A container's whole id. Only these prefixes mean a container: `libpod-conmon-<id>` is its monitor, outside of it.
_WHOLE = re.compile(
    r"(?:(?:docker|cri-containerd|crio|cri-o|containerd|nerdctl|podman|libpod|libpod-payload)-)?([0-9a-f]{64})"
    r"(?:\.scope|\.service)?"
)
# containerd's shims below a systemd slice: `<slice>:cri-containerd:<id>`.
_COLONS = re.compile(r"[^/]*:(?:cri-containerd|containerd|docker|crio):([0-9a-f]{64})")
# Amazon's tasks, and Docker's ids where somebody shortened them.
_TASK = re.compile(r"[0-9a-f]{32}-[0-9]{1,10}")
_SHORT = re.compile(r"[0-9a-f]{32}")
# What an engine mounts into a container from its own folder of that container, and nowhere else.
_OWN_FILES = {"/etc/resolv.conf", "/etc/hostname", "/etc/hosts"}
_ENGINES_FOLDER = re.compile(r"/(?:containers|overlay-containers)/([0-9a-f]{64})/(?:userdata/)?[a-z.]+")

_MOST_BYTES = 64 * 1024


def container_ids(text: str) -> tuple[str, ...]:
    """The containers that a process is in, the innermost first; none where it is in none.

    Args:
        text: of /proc/<pid>/cgroup: v1, v2 or both. Seen from another cgroup namespace its paths begin with `/..`.
    """
    # A process may be moved in some hierarchies and not in others; the line with the most containers knows best.
    return max((_ids_in(line.split(":", 2)[-1]) for line in text.splitlines()), key=len, default=())


def _ids_in(path: str) -> tuple[str, ...]:
    parts = path.strip().split("/")
    return tuple(
        found
        for above, part in zip(reversed(parts[:-1]), reversed(parts[1:]), strict=True)
        if (found := _id_of(part, above))
    )


def _id_of(part: str, above: str) -> str:
    match = _WHOLE.fullmatch(part) or _COLONS.fullmatch(part)
    if match:
        return match[1]
    if _TASK.fullmatch(part) or (above == "docker" and _SHORT.fullmatch(part)):
        return part
    return ""


def container_id_of_mounts(text: str) -> str | None:
    """The container whose files a process sees as its own /etc/hostname and the like; None where it sees the host's.

    Args:
        text: of /proc/<pid>/mountinfo (proc(5)). It helps where the cgroup namespace hides the path.
    """
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) > 4 and fields[4] in _OWN_FILES:
            match = _ENGINES_FOLDER.search(fields[3])
            if match:
                return match[1]
    return None


class ContainerFinder:
    """Finds the container of a process, and remembers it for as long as the process lives.

    A process is a pid together with the time at which it started: a pid that the kernel gives to another process is
    never taken for the first.
    """

    def __init__(self, proc: Path = Path("/proc"), *, most: int = 2048) -> None:
        """Look below `proc`; at most `most` processes are remembered, those asked for last."""
        self._proc = str(proc)
        self._most = most
        self._known: OrderedDict[tuple[int, bytes], tuple[str, ...]] = OrderedDict()

    def containers_of(self, pid: int) -> tuple[str, ...]:
        """The containers that it is in, the innermost first; none for a process of the host, or one that is gone."""
        started = self._started(pid)
        if started is None:
            return ()
        key = (pid, started)
        ids = self._known.get(key)
        if ids is None:
            ids = self._read_ids(pid)
            if self._started(pid) != started:
                # It ended meanwhile, and what was read may be another's.
                return ()
            self._known[key] = ids
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return ids

    def _started(self, pid: int) -> bytes | None:
        """Field 22 of /proc/<pid>/stat, in clock ticks since boot; None where there is no such process."""
        text = self._read(pid, "stat")
        # The program's name stands in parentheses and may hold anything, parentheses and spaces too.
        fields = text[text.rfind(b")") + 1 :].split()
        return fields[19] if len(fields) > 19 else None

    def _read_ids(self, pid: int) -> tuple[str, ...]:
        ids = container_ids(self._read(pid, "cgroup").decode(errors="replace"))
        if ids:
            return ids
        found = container_id_of_mounts(self._read(pid, "mountinfo").decode(errors="replace"))
        return (found,) if found else ()

    def _read(self, pid: int, name: str) -> bytes:
        """Up to 64 KiB of a file of the process; nothing where it is gone or may not be read."""
        try:
            descriptor = os.open(f"{self._proc}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return b"".join(_pieces(descriptor))
        except OSError:
            return b""
        finally:
            os.close(descriptor)


def _pieces(descriptor: int) -> Iterator[bytes]:
    """The kernel hands over a page at a time."""
    left = _MOST_BYTES
    while left > 0 and (piece := os.read(descriptor, left)):
        yield piece
        left -= len(piece)
