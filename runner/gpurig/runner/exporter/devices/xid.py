"""Xid errors: what NVIDIA's driver reports of a GPU, by number (https://docs.nvidia.com/deploy/xid-errors/).

The driver tells an error twice: in the kernel's log, which also knows what happened before the exporter started, and as
an event of NVML, which needs no right to read the log.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gpurig.provisioning.facts import Gpu
from gpurig.provisioning.host import pci_address

# An event and its line in the log are seconds apart at most: both are looked for each second.
PAIR_S = 10.0
# Numbers go to some hundred; more kinds than these are no driver's.
_MOST_KINDS = 1000
# A storm of one error is counted by its first witness, and beyond this by both.
_MOST_WAITING = 1000

# "NVRM: Xid (PCI:0000:01:00): 79, pid=…"; old drivers lack "PCI:", and on a split card follows " GPU-I:05". The comma
# tells a whole number from one that was cut.
_XID = re.compile(
    r"NVRM: Xid \((?:PCI:)?([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2})(?:\.[0-7])?(?: GPU-I:(\d{1,3}))?[^()]{0,40}\): "
    r"(\d{1,4}),",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True)
class XidLine:
    """An error in the log.

    Attributes:
        pci: the card's address, "0000:01:00.0".
        code: the error's number.
        instance: the part of the card (MIG's GPU instance); None for the whole card.
    """

    pci: str
    code: int
    instance: int | None = None


def parse_xid(text: str) -> XidLine | None:
    """The error that a line of the kernel's log tells; None for any other line."""
    found = _XID.match(text)
    if found is None or not int(found[3]):
        return None
    return XidLine(pci_address(f"{found[1]}.0"), int(found[3]), int(found[2]) if found[2] else None)


@dataclass(frozen=True)
class XidSeen:
    """How often an error was seen.

    Attributes:
        count: as far as the kernel's log and the exporter go back.
        last_seen: Unix time in seconds.
    """

    count: int
    last_seen: float


@dataclass(frozen=True)
class _Kind:
    """Errors that are counted together; `card` is a PCI address, or a UUID where the card has none."""

    card: str
    code: int
    instance: int | None


class XidCounts:
    """Counts errors that two witnesses report, each error once, whoever is first."""

    def __init__(self) -> None:
        """Start without errors."""
        self._lock = threading.Lock()
        self._seen: dict[_Kind, XidSeen] = {}
        # Reports that wait for the other witness's, by witness, card and code: their times.
        self._single: dict[tuple[str, str, int], list[float]] = {}

    def add(self, witness: str, card: str, code: int, at: float, instance: int | None = None) -> None:
        """Note a report.

        Args:
            witness: "log" or "event".
            card: PCI address, or UUID where the card has none.
            code: the error's number.
            at: when it happened, Unix time.
            instance: the part of the card; None for the whole.
        """
        other = ("event" if witness == "log" else "log", card, code)
        with self._lock:
            waiting = [time for time in self._single.get(other, ()) if at - time <= PAIR_S]
            twin = next((time for time in waiting if abs(time - at) <= PAIR_S), None)
            if twin is not None:
                # The instance is left to the first: the witnesses may know it differently.
                waiting.remove(twin)
                self._single[other] = waiting
                return
            kind = _Kind(card, code, instance)
            before = self._seen.get(kind, XidSeen(0, at))
            if before.count == 0 and len(self._seen) >= _MOST_KINDS:
                return
            self._seen[kind] = XidSeen(before.count + 1, max(before.last_seen, at))
            single = self._single.setdefault((witness, card, code), [])
            single[:] = [*(time for time in single if abs(time - at) <= PAIR_S), at][-_MOST_WAITING:]

    def of(self, gpus: Sequence[Gpu], instances: Mapping[str, int]) -> dict[str, dict[int, XidSeen]]:
        """The errors of these GPUs: by UUID, by number.

        An error of a whole card that is split is one of each of its parts.

        Args:
            gpus: who may have some.
            instances: MIG's GPU instance of parts, by UUID, where it is known.
        """
        with self._lock:
            seen = list(self._seen.items())
        found: dict[str, dict[int, XidSeen]] = {}
        for kind, one in seen:
            for gpu in gpus:
                if not _concerns(kind, gpu, instances.get(gpu.uuid)):
                    continue
                codes = found.setdefault(gpu.uuid, {})
                codes[kind.code] = _sum([one, codes[kind.code]] if kind.code in codes else [one])
        return found


def _sum(several: Iterable[XidSeen]) -> XidSeen:
    known = list(several)
    return XidSeen(sum(one.count for one in known), max(one.last_seen for one in known))


def _concerns(kind: _Kind, gpu: Gpu, instance: int | None) -> bool:
    if gpu.backend != "cuda" or kind.card != card_of(gpu):
        return False
    return kind.instance is None or instance is None or kind.instance == instance


def card_of(gpu: Gpu) -> str:
    """How errors name the card of a GPU: its PCI address, or its UUID where it has none."""
    return gpu.pci_address or gpu.parent or gpu.uuid
