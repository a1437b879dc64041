"""How a console script ends: errors caught once, one line and a hint, the right exit code."""

from __future__ import annotations

import os
import sys
import traceback

import click

from gpurig.common.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, ApplianceError
from gpurig.common.terminal import harmless


def run_command(  # noqa: PLR0911 - one return an exit code
    command: click.Command, *, program: str, arguments: list[str] | None = None
) -> int:
    """Run a click command and return the exit code; nothing but a bug shows a traceback.

    `--debug` among the arguments, where the command has that option, shows the traceback of every error.
    """
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    try:
        answer = command.main(args=words, prog_name=program, standalone_mode=False)
    except ApplianceError as error:
        if debug:
            traceback.print_exc()
        say_error(program, error)
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo(f"{program}: interrupted", err=True)
        return EXIT_INTERRUPTED
    except click.UsageError as error:
        error.show()
        return EXIT_USAGE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # The reader went away (`| head`): say nothing, also not while the interpreter closes its streams.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except Exception:  # noqa: BLE001 - a bug: the traceback is its report
        traceback.print_exc()
        click.echo(f"{program}: this is a bug in gpurig; please report the lines above", err=True)
        return EXIT_BUG
    return answer if isinstance(answer, int) else EXIT_OK


def say_error(program: str, error: ApplianceError) -> None:
    """Print what happened and what to do, one line each, to standard error."""
    click.echo(f"{program}: {harmless(error.message)}", err=True)
    for line in error.details:
        click.echo(f"  {harmless(line)}", err=True)
    if error.hint:
        click.echo(f"  hint: {harmless(error.hint)}", err=True)
