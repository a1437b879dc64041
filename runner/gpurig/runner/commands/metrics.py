"""`gpurig metrics`: serving the box's metrics."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gpurig.provisioning.listen import METRICS_LISTEN, split_listen
from gpurig.runner.commands.metrics_watch import usual_socket, watch

if TYPE_CHECKING:
    from gpurig.runner.exporter.assembly import ExporterOptions

F = TypeVar("F", bound=Callable[..., Any])


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, int]:
    try:
        return split_listen(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error


def _say(line: str) -> None:
    click.echo(f"gpurig: {line}", err=True)


_READING = (
    click.option(
        "--backend",
        type=click.Choice(["auto", "cpu", "demo"]),
        default="auto",
        show_default=True,
        help="auto: the GPUs that are there. cpu: none. demo: two that do not exist, with jobs.",
    ),
    click.option(
        "--period",
        "period_s",
        metavar="SECONDS",
        type=click.FloatRange(min=0.05, max=60),
        default=1.0,
        show_default=True,
        help="Time between two readings of a GPU.",
    ),
    click.option(
        "--idle-period",
        "idle_period_s",
        metavar="SECONDS",
        type=click.FloatRange(min=0.05, max=60),
        default=5.0,
        show_default=True,
        help="The same, after a minute in which nothing used a GPU.",
    ),
    click.option(
        "--keep-finished",
        "keep_finished_s",
        metavar="SECONDS",
        type=click.FloatRange(min=0, max=86400),
        default=300.0,
        show_default=True,
        help="How long a job that ended keeps its series.",
    ),
    click.option("--dcgm-names", is_flag=True, help="Add what dcgm-exporter's dashboards ask for: DCGM_FI_DEV_*."),
    click.option(
        "--hostname", default=platform.node, metavar="NAME", help="What those call this machine. [as it calls itself]"
    ),
    click.option(
        "--root",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("/"),
        show_default=True,
        help="Where `up --root` put gpurig's files.",
    ),
    click.option("--name", default="gpurig", show_default=True, help="The instance, as `up --name` named it."),
    click.option(
        "--engine",
        "socket",
        metavar="unix:///PATH",
        callback=usual_socket,
        help="The engine whose CI jobs are accounted for; off for none. [the usual one, where there is one]",
    ),
    click.option(
        "--box-facts",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Ask the file of `metrics watch` instead of the engine and the box's files.",
    ),
    click.option(
        "--state-dir",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Where counters outlive the exporter. [they begin at 0]",
    ),
    click.option(
        "--usage-dir",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Write there what each job used, for its report.",
    ),
)


def _reading_options(command: F) -> F:
    """What is read, and how often; the command takes them as one mapping for `_options`."""
    for option in reversed(_READING):
        command = option(command)
    return command


def _options(given: dict[str, Any]) -> ExporterOptions:
    from gpurig.runner.exporter.assembly import ExporterOptions  # noqa: PLC0415 - loads the readers

    return ExporterOptions(**given)


@click.group(epilog="Example: gpurig metrics serve --backend demo")
def metrics() -> None:
    """Give GPU and job metrics to Prometheus."""


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
@_reading_options
def serve(*, listen: tuple[str, int], web_config: Path | None, insecure: bool, **reading: Any) -> None:
    """Serve /metrics and /healthz until SIGTERM or Ctrl-C.

    The devices are read in the background; a scrape reads memory only. Where
    other machines reach it, --web-config with TLS and users is demanded.
    """
    from gpurig.runner.exporter.serve import serve as run  # noqa: PLC0415 - loads prometheus_client
    from gpurig.runner.exporter.web.web_config import check_exposure  # noqa: PLC0415

    check_exposure(listen[0], web_config, insecure=insecure, options=("--listen", "--web-config", "--insecure"))
    run(*listen, _options(reading), web_config=web_config, say=_say)


@metrics.command(epilog="Example: gpurig metrics textfile --output /var/lib/prometheus/node-exporter/gpurig.prom")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE.prom",
    help="In the folder that node_exporter's --collector.textfile.directory names.",
)
@click.option("--once", is_flag=True, help="Write one reading and end; the file stays.")
@click.option(
    "--every",
    "write_period_s",
    metavar="SECONDS",
    type=click.FloatRange(min=1, max=3600),
    default=15.0,
    show_default=True,
    help="Time between two writings.",
)
@_reading_options
def textfile(*, output: Path, once: bool, write_period_s: float, **reading: Any) -> None:
    """Write the metrics to a file for node_exporter, which serves them.

    It replaces the file as a whole until SIGTERM or Ctrl-C, and then removes
    it. It is what `serve` shows, but for the metrics of its own process.
    """
    from gpurig.runner.exporter.textfile import write_textfile  # noqa: PLC0415 - loads prometheus_client

    write_textfile(output, _options(reading), write_period_s=None if once else write_period_s, say=_say)


metrics.add_command(watch)
