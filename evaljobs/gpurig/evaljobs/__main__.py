"""The `gpurig-job` command: the programs inside a job image."""

from __future__ import annotations

import sys

import click

from gpurig.common.command import run_command
from gpurig.common.lazy import LazyCommand, LazyGroup
from gpurig.common.version import __version__

_HERE = "gpurig.evaljobs.commands"

COMMANDS = {
    "generate": LazyCommand(f"{_HERE}.stages:generate", "Let the generator answer every sample of a suite."),
    "check": LazyCommand(f"{_HERE}.stages:check", "Run the suite's checks over the generations."),
    "grade": LazyCommand(f"{_HERE}.stages:grade", "Let the grader judge every generation."),
    "report": LazyCommand(f"{_HERE}.report:report", "Compute the results, apply the gate, write the reports."),
    "eval": LazyCommand(f"{_HERE}.stages:eval_", "All four stages, one after the other."),
    "validate": LazyCommand(f"{_HERE}.stages:validate", "Check a suite without running it."),
    "selfcheck": LazyCommand(f"{_HERE}.selfcheck:selfcheck", "Prove that this image can run jobs on its backend."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="Exit codes: 0 fine, 1 a bug, 2 bad input, 3 the gate failed, 4 a prerequisite is missing, "
    "5 GitLab or the network failed, 130 interrupted.",
)
@click.version_option(__version__, prog_name="gpurig-job")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(*, debug: bool) -> None:
    """Evaluate language models inside a CI job: generate, check, grade, report."""
    _ = debug  # read by run_command, which sees every error


def main() -> None:
    """The console script."""
    sys.exit(run_command(cli, program="gpurig-job"))


if __name__ == "__main__":
    main()
