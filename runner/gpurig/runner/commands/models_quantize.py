"""`gpurig models quantize`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from gpurig.common.models.quantizations import parse_quantizations
from gpurig.common.models.quantize_options import QuantizeOptions, quantize_options
from gpurig.common.terminal import harmless
from gpurig.provisioning.paths import Paths
from gpurig.runner.commands.instance import instance_options
from gpurig.runner.commands.models_options import folder_option, models_folder


@click.command(
    epilog="\b\nExamples:\n  gpurig models quantize my-model-f16 --to Q4_K_M,Q6_K\n"
    "  gpurig models quantize my-model-f16 --to IQ3_M --calibration builtin\n"
    "  gpurig models quantize model-f16.gguf --to Q4_K_M --max-kld 0.05\n"
    "  gpurig models quantize my-model-f16 --to Q8_0,Q4_K_M --dry-run"
)
@click.argument("model", required=False)
@quantize_options
@folder_option("Where names are looked for and results go; the box's models folder if absent.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Put the results elsewhere.")
@click.option(
    "--container/--no-container",
    default=None,
    help="Run in the job image, or in this installation; if absent here, where the eval extra is installed.",
)
@instance_options
def quantize(
    *,
    model: str | None,
    folder: Path | None,
    out: Path | None,
    container: bool | None,
    name: str,
    root: Path,
    **given: Any,
) -> None:
    """Quantize a model, and say what that costs.

    MODEL is a name in the models folder, or a file; if absent, the one model in
    F16, BF16 or F32 that is there. Writes MODEL-TYPE.gguf for each type into
    the models folder, and MODEL.quantize.json with the figures: the divergence
    of the predictions from the original's (KLD), how often both find the same
    token most probable, and the perplexities. Exits with 3 where a limit is
    passed. Run again, it makes only what is missing.
    """
    from gpurig.common.models.resolving import cache_folder  # noqa: PLC0415 - not needed for --help
    from gpurig.runner.quantizing import can_run_here, choose_source, quantize_here  # noqa: PLC0415

    options = QuantizeOptions(**given)
    parse_quantizations(options.to)
    paths = Paths(root.absolute(), name)
    place = models_folder(folder, paths)
    folders = [place] if folder else list(dict.fromkeys((place, paths.models, cache_folder(os.environ))))
    source = choose_source(model, folders, _ask if sys.stdin.isatty() and sys.stderr.isatty() else None)
    if model is None:
        click.echo(f"quantizing {harmless(str(source))}", err=True)
    target = (out or place).absolute()
    if container or (container is None and not can_run_here()):
        from gpurig.runner.quantizing_container import quantize_in_container  # noqa: PLC0415 - heavy

        code = quantize_in_container(source, target, options, paths)
    else:
        code = quantize_here(source, target, options)
    if code:
        raise click.exceptions.Exit(code)


def _ask(names: Sequence[str]) -> int:
    for number, one in enumerate(names, start=1):
        click.echo(f"{number:>3}  {harmless(one)}", err=True)
    return int(click.prompt("Which model", type=click.IntRange(1, len(names)), err=True)) - 1
