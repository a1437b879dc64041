"""`gpurig metrics`: serving the box's metrics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpurig.provisioning.listen import METRICS_LISTEN, split_listen

if TYPE_CHECKING:
    from gpurig.runner.exporter.serve import ExporterBackend


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, int]:
    try:
        return split_listen(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error


@click.group(epilog="Example: gpurig metrics serve --backend demo")
def metrics() -> None:
    """Serve GPU metrics to Prometheus."""


@metrics.command(epilog="Example: gpurig metrics serve --listen 0.0.0.0:9476, then scrape http://THIS-BOX:9476/metrics")
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    default=METRICS_LISTEN,
    show_default=True,
    callback=_address,
    help="Where to listen; [::1]:9476 for IPv6, 0.0.0.0:9476 for everybody.",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", "cpu", "demo"]),
    default="auto",
    show_default=True,
    help="auto: the GPUs that are there. cpu: none. demo: two that do not exist.",
)
@click.option(
    "--period",
    metavar="SECONDS",
    type=click.FloatRange(min=0.05, max=60),
    default=1.0,
    show_default=True,
    help="Time between two readings of a GPU.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    show_default=True,
    help="Where `up --root` put gpurig's files.",
)
@click.option("--name", default="gpurig", show_default=True, help="The instance, as `up --name` named it.")
def serve(*, listen: tuple[str, int], backend: ExporterBackend, period: float, root: Path, name: str) -> None:
    """Serve /metrics and /healthz until SIGTERM or Ctrl-C.

    The devices are read in the background; a scrape reads memory only.
    """
    from gpurig.runner.exporter.serve import serve as run  # noqa: PLC0415 - loads prometheus_client

    run(
        *listen,
        backend=backend,
        period_s=period,
        root=root,
        name=name,
        say=lambda line: click.echo(f"gpurig: {line}", err=True),
    )
