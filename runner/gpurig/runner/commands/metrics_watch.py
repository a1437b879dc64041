"""`gpurig metrics watch`: what the exporter may know of the engine and the box, in a file."""

from __future__ import annotations

from pathlib import Path

import click

from gpurig.provisioning.engine_facts import DEFAULT_ADDRESS

_PREFIX = "unix://"


def _socket(_context: click.Context, _parameter: click.Parameter, value: str) -> Path:
    path = value.removeprefix(_PREFIX)
    if not path.startswith("/"):
        raise click.BadParameter(f"{value} is no socket of this machine: name one like {DEFAULT_ADDRESS}.")
    return Path(path)


def usual_socket(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    """The socket that an option names; the usual one where it is not given and there is one, None for "off"."""
    if value == "off":
        return None
    found = _socket(context, parameter, value or DEFAULT_ADDRESS)
    return found if value or found.exists() else None


@click.command(epilog="Example: gpurig metrics watch --output /var/lib/gpurig/metrics/box/facts.json")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="The file that `metrics serve --box-facts` reads.",
)
@click.option(
    "--engine",
    "socket",
    envvar="DOCKER_HOST",
    metavar="unix:///PATH",
    default=DEFAULT_ADDRESS,
    show_default=True,
    callback=_socket,
    help="The engine's socket.",
)
@click.option(
    "--engine-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A folder on the file system of the engine's images. [what the engine says]",
)
@click.option(
    "--give-up",
    "patience_s",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    help="End when the engine did not answer for so long, to be started anew. [never]",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    show_default=True,
    help="Where `up --root` put gpurig's files.",
)
@click.option("--name", default="gpurig", show_default=True, help="The instance, as `up --name` named it.")
def watch(
    *, output: Path, socket: Path, engine_dir: Path | None, patience_s: int | None, root: Path, name: str
) -> None:
    """Write what the exporter may know of jobs and the box, until SIGTERM.

    The exporter answers the network, and has neither the engine's socket nor
    a token. This has both, and answers nobody. `gpurig up` starts each in a
    container of its own.

    An engine that does not answer is no end: it is said in FILE, and asked
    again. Exit code 4 where FILE cannot be written, and with --give-up.
    """
    from gpurig.provisioning.paths import Paths  # noqa: PLC0415
    from gpurig.runner.exporter.watching import watch as run  # noqa: PLC0415

    run(
        output.absolute(),
        socket=socket,
        paths=Paths(root=root.absolute(), name=name),
        engine_dir=engine_dir,
        patience_s=patience_s,
        say=lambda line: click.echo(f"gpurig: {line}", err=True),
    )
