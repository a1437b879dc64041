"""What `gpurig` and `gpurig-job` have in common: the group, its options, the exit codes in its help."""

from __future__ import annotations

from collections.abc import Mapping

import click

from gpurig.common.lazy import LazyCommand, LazyGroup
from gpurig.common.version import __version__


def make_program(name: str, summary: str, commands: Mapping[str, LazyCommand]) -> click.Group:
    """The command line of one of our programs.

    Args:
        name: as it is installed.
        summary: the first line of its help.
        commands: in the order in which help lists them.
    """
    group = LazyGroup(
        name=name,
        lazy=commands,
        # `--debug` is read by run_command, which sees every error.
        params=[click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error.")],
        help=summary,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
        epilog="Exit codes: 0 fine, 1 a bug, 2 bad input, 3 the gate failed, 4 a prerequisite is missing, "
        "5 GitLab or the network failed, 130 interrupted.",
    )
    return click.version_option(__version__, prog_name=name)(group)
