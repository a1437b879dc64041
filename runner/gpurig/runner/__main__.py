"""The `gpurig` command."""

from __future__ import annotations

import sys

import click

from gpurig.common.command import run_command
from gpurig.common.lazy import LazyCommand, LazyGroup
from gpurig.common.version import __version__

_HERE = "gpurig.runner.commands"

COMMANDS = {
    "up": LazyCommand(f"{_HERE}.up:up", "Make this box a GitLab runner; run again, it changes what differs."),
    "doctor": LazyCommand(f"{_HERE}.doctor:doctor", "Check every prerequisite; each failure comes with its fix."),
    "detect": LazyCommand(f"{_HERE}.detect:detect", "Show the GPUs, the backend, the memory and the tags."),
    "status": LazyCommand(f"{_HERE}.status:status", "Show the runner, its containers and the running jobs."),
    "down": LazyCommand(f"{_HERE}.down:down", "Stop; --unregister also removes the runner from GitLab."),
    "metrics": LazyCommand(f"{_HERE}.metrics:metrics", "Serve GPU metrics to Prometheus."),
    "demo": LazyCommand(f"{_HERE}.demo:demo", "Run a real eval on the bundled models, with a report."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="Exit codes: 0 fine, 1 a bug, 2 bad input, 3 the gate failed, 4 a prerequisite is missing, "
    "5 GitLab or the network failed, 130 interrupted.",
)
@click.version_option(__version__, prog_name="gpurig")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(*, debug: bool) -> None:
    """Turn a box with one consumer GPU into a GitLab CI runner for LLM work."""
    _ = debug  # read by run_command, which sees every error


def main() -> None:
    """The console script."""
    sys.exit(run_command(cli, program="gpurig"))


if __name__ == "__main__":
    main()
