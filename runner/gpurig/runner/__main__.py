"""The `gpurig` command."""

from __future__ import annotations

import sys

from gpurig.common.command import run_command
from gpurig.common.lazy import LazyCommand
from gpurig.common.program import make_program

_HERE = "gpurig.runner.commands"

COMMANDS = {
    "up": LazyCommand(f"{_HERE}.up:up", "Make this box a GitLab runner; run again, it changes what differs."),
    "doctor": LazyCommand(f"{_HERE}.doctor:doctor", "Check every prerequisite; each failure comes with its fix."),
    "detect": LazyCommand(f"{_HERE}.detect:detect", "Show the GPUs, the backend, the memory and the tags."),
    "status": LazyCommand(f"{_HERE}.status:status", "Show the runner, its containers and the running jobs."),
    "down": LazyCommand(f"{_HERE}.down:down", "Stop; --unregister also removes the runner from GitLab."),
    "upgrade": LazyCommand(
        f"{_HERE}.upgrade:upgrade", "Bring runner, exporter and job images to this version of gpurig."
    ),
    "images": LazyCommand(f"{_HERE}.images:images", "Build, show, push and try the images that jobs run in."),
    "models": LazyCommand(f"{_HERE}.models:models", "Show, pull and measure models in GGUF format."),
    "metrics": LazyCommand(f"{_HERE}.metrics:metrics", "Give GPU and job metrics to Prometheus."),
    "demo": LazyCommand(f"{_HERE}.demo:demo", "Run a real eval on the bundled models, with a report."),
}


cli = make_program("gpurig", "Turn a box with one consumer GPU into a GitLab CI runner for LLM work.", COMMANDS)


def main() -> None:
    """The console script."""
    sys.exit(run_command(cli, program="gpurig"))


if __name__ == "__main__":
    main()
