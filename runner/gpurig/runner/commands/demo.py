"""`gpurig demo`."""

from __future__ import annotations

from pathlib import Path

import click

from gpurig.common.terminal import harmless


@click.command(epilog="Example: gpurig demo --out report/demo")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("report/demo"),
    show_default=True,
    help="The folder of the report.",
)
@click.option("--fresh", is_flag=True, help="Forget what earlier runs finished.")
def demo(*, out: Path, fresh: bool) -> None:
    """Run a real eval on the bundled models, with a report.

    Needs no GPU, no Docker and no GitLab: a small model writes CI jobs, checks and a second model judge them. Exits
    with 3 where the gate fails.
    """
    from gpurig.runner.demo import run_demo  # noqa: PLC0415 - pydantic, which `--help` must not pay

    click.echo("A bundled 3 MB model writes GitLab CI jobs on the CPU; a second one grades them.")
    outcome = run_demo(out, fresh=fresh)
    if outcome.results is not None:
        if outcome.nothing_new:
            click.echo("Every sample was done already, so no model ran; --fresh runs them again.")
        click.echo(harmless(f"Open {out / 'report.html'} in a browser."))
    if outcome.code:
        raise click.exceptions.Exit(outcome.code)
