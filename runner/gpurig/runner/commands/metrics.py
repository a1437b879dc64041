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


@metrics.command(epilog="Example: gpurig metrics serve --listen 0.0.0.0:9476 --web-config web.yml")
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    default=METRICS_LISTEN,
    show_default=True,
    callback=_address,
    help="Where to listen; [::1]:9476 for IPv6, 0.0.0.0:9476 for everybody.",
)
@click.option(
    "--web-config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="TLS and users, as Prometheus' exporter-toolkit writes them.",
)
@click.option("--insecure", is_flag=True, help="Let other machines read without TLS and a password.")
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
def serve(
    *,
    listen: tuple[str, int],
    web_config: Path | None,
    insecure: bool,
    backend: ExporterBackend,
    period: float,
    root: Path,
    name: str,
) -> None:
    """Serve /metrics and /healthz until SIGTERM or Ctrl-C.

    The devices are read in the background; a scrape reads memory only. Where
    other machines reach it, --web-config with TLS and users is demanded.
    """
    from gpurig.runner.exporter.serve import serve as run  # noqa: PLC0415 - loads prometheus_client
    from gpurig.runner.exporter.web.web_config import check_exposure  # noqa: PLC0415

    check_exposure(listen[0], web_config, insecure=insecure, options=("--listen", "--web-config", "--insecure"))
    run(
        *listen,
        backend=backend,
        period_s=period,
        root=root,
        name=name,
        web_config=web_config,
        say=lambda line: click.echo(f"gpurig: {line}", err=True),
    )
