"""`gpurig detect`: what this box has, for a person or (`--json`) for a program."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from gpurig.common.errors import EXIT_OK, EXIT_PREREQUISITE
from gpurig.common.terminal import harmless, table
from gpurig.provisioning.facts import Gpu, HostFacts
from gpurig.provisioning.tags import tags_for
from gpurig.provisioning.vram import GIB, vram_class_gb

# Raised when a key of --json changes its meaning or goes; new keys leave it as it is.
SCHEMA = 1


@click.command(epilog="Example: gpurig detect --json")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/detection.md).")
@click.option(
    "--host-root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("/"),
    help="Read DIR/sys, DIR/proc and DIR/dev: a recorded machine, or the host seen from a container.",
    metavar="DIR",
)
def detect(*, as_json: bool, host_root: Path) -> int:
    """Show the GPUs, the backend, the memory and the tags.

    Exit code 4 when a GPU is there that cannot be used; a box without any is fine: its backend is cpu.
    """
    from gpurig.provisioning.detect import detect as look  # noqa: PLC0415 - not needed for --help

    facts = look(root=host_root)
    click.echo(json.dumps(as_document(facts), indent=2) if as_json else as_text(facts))
    return EXIT_PREREQUISITE if any(problem.unusable for problem in facts.problems) else EXIT_OK


def as_document(facts: HostFacts) -> dict[str, Any]:
    """The facts as `--json` prints them; docs/detection.md describes every key."""
    return {
        "schema": SCHEMA,
        "backend": facts.backend,
        "platform": facts.platform,
        "system_memory_bytes": facts.system_memory_bytes,
        "cuda_version": facts.cuda_version,
        "tags": list(tags_for(facts.gpus)),
        "gpus": [_gpu_document(gpu) for gpu in facts.gpus],
        "ignored": [{**_gpu_document(gpu), "reason": reason} for gpu, reason in facts.ignored],
        "problems": [asdict(problem) for problem in facts.problems],
    }


def _gpu_document(gpu: Gpu) -> dict[str, Any]:
    size = None if gpu.memory_bytes is None else vram_class_gb(gpu.memory_bytes)
    return {**asdict(gpu), "vram_class_gb": size, "tags": list(tags_for([gpu]))}


def as_text(facts: HostFacts) -> str:
    """The facts for a person, in 80 columns."""
    blocks = [_summary(facts)]
    if facts.gpus:
        rows = [_row(number, gpu) for number, gpu in enumerate(facts.gpus, start=1)]
        blocks.append(table(("#", "GPU", "memory", "class", "arch", "PCI"), rows))
    blocks.append(_tag_lines(facts))
    if facts.ignored:
        rows = [(_name(gpu), gpu.pci_address or "-", reason) for gpu, reason in facts.ignored]
        blocks.append(table(("ignored", "PCI", "because"), rows))
    if facts.problems:
        blocks.append("\n".join(_problem_lines(facts)))
    return "\n\n".join(blocks)


def _summary(facts: HostFacts) -> str:
    parts = [f"backend {facts.backend}"]
    drivers = dict.fromkeys(gpu.driver for gpu in facts.gpus if gpu.driver)
    parts += [f"driver {harmless(driver)}" for driver in drivers]
    parts += [f"CUDA up to {harmless(facts.cuda_version)}"] if facts.cuda_version else []
    parts += [facts.platform] if facts.platform != "linux" else []
    return ", ".join(parts)


def _row(number: int, gpu: Gpu) -> tuple[str, ...]:
    size = "unknown" if gpu.memory_bytes is None else f"{gpu.memory_bytes / GIB:.1f} GiB"
    own = None if gpu.memory_bytes is None else vram_class_gb(gpu.memory_bytes)
    return (str(number), _name(gpu), size, f"{own} GB" if own else "-", gpu.arch or "-", gpu.pci_address or "-")


def _name(gpu: Gpu) -> str:
    return gpu.name or ("AMD GPU" if gpu.backend == "rocm" else "NVIDIA GPU")


def _tag_lines(facts: HostFacts) -> str:
    """The tags of each GPU, since each gets a runner entry of its own; once for those that have the same."""
    owners: dict[tuple[str, ...], list[str]] = {}
    for number, gpu in enumerate(facts.gpus, start=1):
        owners.setdefault(tags_for([gpu]), []).append(f"#{number}")
    if len(owners) <= 1:
        return _wrapped("tags:", next(iter(owners), tags_for([])))
    return "\n".join(_wrapped(f"tags of {', '.join(numbers)}:", tags) for tags, numbers in owners.items())


def _wrapped(title: str, words: tuple[str, ...]) -> str:
    return click.wrap_text(" ".join((title, *words)), width=80, subsequent_indent="  ")


def _problem_lines(facts: HostFacts) -> list[str]:
    lines = []
    for problem in facts.problems:
        lines.append(click.wrap_text(f"problem: {harmless(problem.message)}", width=80, subsequent_indent="  "))
        if problem.hint:
            hint = f"hint: {harmless(problem.hint)}"
            lines.append(click.wrap_text(hint, width=80, initial_indent="  ", subsequent_indent="  "))
    return lines
