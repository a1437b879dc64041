"""The port of the metrics, and the folders."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from gpurig.provisioning.doctor.finding import Finding


@dataclass(frozen=True)
class PortSeen:
    """Where the exporter shall listen.

    Attributes:
        listen: "127.0.0.1:9476", or "off".
        problem: why it cannot; "" where it can.
        hint: what to do about it.
    """

    listen: str
    problem: str = ""
    hint: str = ""


def judge(seen: PortSeen, exporters: Collection[str]) -> tuple[Finding, ...]:
    """The finding on the port.

    Args:
        seen: whether it is free.
        exporters: where this instance's exporter listens already.
    """
    if seen.listen == "off":
        return (Finding("metrics port", "skipped", "metrics are off"),)
    if bare(seen.listen) in exporters:
        return (Finding("metrics port", "ok", "our exporter listens there", found=seen.listen),)
    if seen.problem:
        return (
            Finding(
                "metrics port", "failed", seen.problem, found="in use", needed=f"{seen.listen} free", hint=seen.hint
            ),
        )
    return (Finding("metrics port", "ok", "free", found=seen.listen),)


def bare(listen: str) -> str:
    """An address and port as the engine writes it, without an IPv6 address' brackets."""
    return listen.replace("[", "").replace("]", "")
