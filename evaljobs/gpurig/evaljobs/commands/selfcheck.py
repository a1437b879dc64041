"""`gpurig-job selfcheck`: prove that this image can run jobs on its backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gpurig.common.terminal import harmless, table

if TYPE_CHECKING:
    from gpurig.evaljobs.selfcheck import Backend, Selfcheck

_GIB = 1024**3


@click.command(epilog="Example: gpurig-job selfcheck --backend cuda --json")
@click.option(
    "--backend",
    type=click.Choice(["cpu", "cuda", "rocm"]),
    help="What jobs must run on; the image's own where left out.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def selfcheck(*, backend: Backend | None, as_json: bool) -> None:
    """Prove that this image can run jobs on its backend.

    Shows llama.cpp's devices and lets the bundled model generate a few tokens. A GPU backend without a GPU ends with
    exit code 4; it never falls back to the CPU.
    """
    from gpurig.evaljobs.selfcheck import run_selfcheck  # noqa: PLC0415 - heavy

    found = run_selfcheck(backend)
    click.echo(found.to_json() if as_json else _text(found))


def _text(found: Selfcheck) -> str:
    lines = [
        f"backend   {found.backend}" + (f" ({found.cpu_target})" if found.cpu_target else ""),
        "versions  " + ", ".join(f"{name} {version}" for name, version in found.versions.items()),
        f"machine   {found.cpus} CPUs, {found.memory_bytes / _GIB:.1f} GiB",
    ]
    if found.generated is None:
        lines.append("model     none bundled: nothing was generated")
    else:
        lines.append(
            f"model     {harmless(found.generated.model)}: {found.generated.tokens} tokens in "
            f"{found.generated.seconds:.2f} s"
        )
    rows = [
        (one.name, one.kind, one.description, f"{one.total_bytes / _GIB:.1f}", f"{one.free_bytes / _GIB:.1f}")
        for one in found.devices
    ]
    return "\n".join([*lines, "", table(("device", "kind", "name", "GiB", "free"), rows)])
