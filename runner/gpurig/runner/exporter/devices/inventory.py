"""Which GPUs the box has, and which it had: a card that falls off the bus stays visible as one that is down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpurig.provisioning.facts import Gpu, HostFacts
from gpurig.runner.exporter.devices.figures import SourceError

# How detection's probes name themselves in `Problem.source`.
_PROBES = {"cuda": "nvml", "rocm": "amd-sysfs"}


@dataclass(frozen=True)
class KnownGpu:
    """A GPU that was seen since the exporter started.

    Attributes:
        index: its number, in the order in which the GPUs were found; it never changes.
        present: the last detection saw it.
    """

    index: int
    gpu: Gpu
    present: bool


@dataclass(frozen=True)
class Known:
    """What is known of the box.

    Attributes:
        facts: the last detection.
        gpus: every GPU that was seen, by index.
    """

    facts: HostFacts
    gpus: tuple[KnownGpu, ...]

    @property
    def present(self) -> tuple[Gpu, ...]:
        """The GPUs of the last detection."""
        return tuple(known.gpu for known in self.gpus if known.present)

    def require(self, backend: str) -> Sequence[Gpu]:
        """Every GPU of a backend that was ever seen.

        Raises:
            SourceError: detection met a problem with that backend and sees none of its GPUs.
        """
        mine = [known.gpu for known in self.gpus if known.gpu.backend == backend]
        if not any(known.present for known in self.gpus if known.gpu.backend == backend):
            for problem in self.facts.problems:
                if problem.source == _PROBES.get(backend):
                    raise SourceError(problem.message)
        return mine


class Inventory:
    """Detects, and remembers what was there."""

    def __init__(self, detect: Callable[[], HostFacts]) -> None:
        """Take the detection."""
        self._detect = detect
        self._seen: dict[str, KnownGpu] = {}

    def read(self) -> Known:
        """Detect now."""
        facts = self._detect()
        now = {gpu.uuid: gpu for gpu in facts.gpus}
        for uuid, known in self._seen.items():
            self._seen[uuid] = KnownGpu(known.index, now.get(uuid, known.gpu), present=uuid in now)
        for uuid, gpu in now.items():
            if uuid not in self._seen:
                self._seen[uuid] = KnownGpu(len(self._seen), gpu, present=True)
        return Known(facts=facts, gpus=tuple(self._seen.values()))
