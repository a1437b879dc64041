"""systemd in memory: units read from the disk when told so, processes that run what was read then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gpurig.common.errors import PrerequisiteError
from gpurig.provisioning.disk import Disk
from gpurig.provisioning.service_spec import UNIT_DIR
from gpurig.provisioning.services import FoundService


@dataclass
class MemorySystemd:
    """Everything that `systemctl` is asked for; `stopped` says what was stopped, and how long it was waited for.

    Attributes:
        loaded: unit files as they were read last.
        processes: the text that the unit had when its process was started.
        reloads: how often the unit files were read.
    """

    disk: Disk
    on_start: Callable[[str], None] = lambda _: None
    available: bool = True
    loaded: dict[str, str] = field(default_factory=dict)
    processes: dict[str, str] = field(default_factory=dict)
    enabled: set[str] = field(default_factory=set)
    stopped: list[tuple[str, int]] = field(default_factory=list)
    reloads: int = 0
    crashing: set[str] = field(default_factory=set)

    def check(self) -> None:
        if not self.available:
            raise PrerequisiteError("systemd does not run this machine", hint="--service container")

    def find(self, name: str) -> FoundService:
        up = name in self.processes
        text = self._text(name)
        if name in self.crashing and up:
            return FoundService(name, "activating", "auto-restart", enabled=name in self.enabled)
        return FoundService(
            name=name,
            status="active" if up else "inactive",
            sub="running" if up else "dead",
            enabled=name in self.enabled,
            stale=name in self.loaded and self.loaded[name] != text,
        )

    def reload(self) -> None:
        self.reloads += 1
        texts = {name: self._text(name) for name in {*self.processes, *self.enabled}}
        self.loaded = {name: text for name, text in texts.items() if text is not None}

    def enable(self, name: str) -> None:
        if self._text(name) is None:
            raise PrerequisiteError(f"Unit file {name}.service does not exist")
        self.enabled.add(name)

    def disable(self, name: str) -> None:
        if self._text(name) is None:
            raise PrerequisiteError(f"Unit file {name}.service does not exist")
        self.enabled.discard(name)
        self._collect(name)

    def start(self, name: str) -> None:
        if name not in self.loaded:
            # As systemd does with a unit that it has not met yet: it reads the file.
            text = self._text(name)
            if text is None:
                raise PrerequisiteError(f"Unit {name}.service not found")
            self.loaded[name] = text
        if name not in self.processes:
            self.processes[name] = self.loaded[name]
            self.on_start(name)

    def stop(self, name: str, *, wait_s: int) -> None:
        if name in self.processes:
            self.stopped.append((name, wait_s))
            del self.processes[name]
        self._collect(name)

    def logs(self, name: str) -> str:
        return "a line\n" if name in self.processes else ""

    def reboot(self) -> None:
        """The machine starts again: unit files are read, and what is enabled runs."""
        self.processes.clear()
        self.loaded.clear()
        for name in sorted(self.enabled):
            self.start(name)

    def snapshot(self) -> dict[str, object]:
        """Everything that lasts, and whether each process runs what its file says."""
        return {
            "enabled": sorted(self.enabled),
            "running": {name: text == self._text(name) for name, text in sorted(self.processes.items())},
            "unread": sorted(name for name, text in self.loaded.items() if text != self._text(name)),
        }

    def _collect(self, name: str) -> None:
        """systemd forgets a unit that neither runs nor is wanted by another."""
        if name not in self.processes and name not in self.enabled:
            self.loaded.pop(name, None)

    def _text(self, name: str) -> str | None:
        return self.disk.read(UNIT_DIR / f"{name}.service")
