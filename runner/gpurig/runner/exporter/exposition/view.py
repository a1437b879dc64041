"""What a scrape is made from: everything that is known at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpurig.provisioning.facts import Gpu, HostFacts
from gpurig.runner.exporter.devices.driver import DriverFacts
from gpurig.runner.exporter.devices.figures import Figures
from gpurig.runner.exporter.devices.xid import XidSeen
from gpurig.runner.exporter.jobs.model import Accounts, BoxFacts


@dataclass(frozen=True)
class GpuView:
    """A GPU that was seen since the exporter started.

    Attributes:
        index: its number.
        gpu: what detection says of it.
        figures: its readings; without any where they are not the present.
        down: why it is down; "" for one that is up.
        energy_joules: what it took since its energy is counted, restarts of the exporter included.
        xids: errors that the driver reported, by number.
    """

    index: int
    gpu: Gpu
    figures: Figures
    down: str = ""
    energy_joules: float | None = None
    xids: Mapping[int, XidSeen] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, str]:
        """Values of the labels gpu and uuid."""
        return str(self.index), self.gpu.uuid


@dataclass(frozen=True)
class CollectorView:
    """How a source's last reading went.

    Attributes:
        name: its name.
        ok: it succeeded.
        duration_s: seconds it took; None for what the watcher reads.
        age_s: seconds since the last that succeeded; None before the first.
        period_s: seconds between two; None for what the watcher reads.
    """

    name: str
    ok: bool
    duration_s: float | None = None
    age_s: float | None = None
    period_s: float | None = None


@dataclass(frozen=True)
class View:
    """One moment.

    Attributes:
        gpus: by index.
        facts: the last detection; None before the first, and on a box that is served without GPUs.
        drivers: those that the GPUs run on.
        accounts: jobs, projects and energy.
        box: what the watcher tells; None where nobody watches, or what it told is not the present.
        collectors: the sources.
        hostname: what the machine is called.
    """

    gpus: tuple[GpuView, ...] = ()
    facts: HostFacts | None = None
    drivers: tuple[DriverFacts, ...] = ()
    accounts: Accounts = field(default_factory=Accounts)
    box: BoxFacts | None = None
    collectors: tuple[CollectorView, ...] = ()
    hostname: str = ""

    def gpu_label(self, uuid: str) -> str:
        """The label gpu: the GPU's number; its UUID where it was not seen since the exporter started."""
        return next((str(one.index) for one in self.gpus if one.gpu.uuid == uuid), uuid)
