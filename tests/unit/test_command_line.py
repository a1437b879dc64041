"""The command line's frame: fast, consistent, and no traceback for what a user does wrong."""

from __future__ import annotations

import importlib
import sys

import click
import pytest
from gpurig.common.command import run_command
from gpurig.common.errors import ApplianceError, GateFailedError, InputError, PrerequisiteError, RemoteError
from gpurig.common.process import run
from gpurig.evaljobs.__main__ import COMMANDS as JOB_COMMANDS
from gpurig.runner.__main__ import COMMANDS as BOX_COMMANDS
from gpurig.runner.commands.models import COMMANDS as MODELS_COMMANDS

ALL_COMMANDS = (
    {f"gpurig {name}": entry for name, entry in BOX_COMMANDS.items()}
    | {f"gpurig models {name}": entry for name, entry in MODELS_COMMANDS.items()}
    | {f"gpurig-job {name}": entry for name, entry in JOB_COMMANDS.items()}
)
HEAVY = (
    "docker",
    "gitlab",
    "llama_cpp",
    "torch",
    "pynvml",
    "prometheus_client",
    "pydantic",
    "jinja2",
    "yaml",
    "huggingface_hub",
    "starlette",
    "uvicorn",
)


@pytest.mark.parametrize("module", ["gpurig.runner.__main__", "gpurig.evaljobs.__main__"])
def test_help_imports_nothing_heavy(module: str) -> None:
    probe = (
        f"import sys; from {module} import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert run([sys.executable, "-c", probe], timeout_s=60).stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_a_command_loads_and_its_summary_is_its_own(name: str) -> None:
    entry = ALL_COMMANDS[name]
    module, _, attribute = entry.target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    first_line = (command.help or "").strip().split("\n\n")[0].replace("\n", " ")
    assert first_line == entry.summary


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_a_commands_help_shows_an_example(name: str) -> None:
    entry = ALL_COMMANDS[name]
    module, _, attribute = entry.target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    with click.Context(command, info_name=name) as context:
        text = command.get_help(context)
    assert "Example" in text
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize(
    ("error", "code"),
    [(InputError, 2), (GateFailedError, 3), (PrerequisiteError, 4), (RemoteError, 5), (ApplianceError, 1)],
)
def test_an_error_is_one_line_and_a_hint_with_its_exit_code(
    error: type[ApplianceError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def fails() -> None:
        raise error("something\nhappened \x1b[31m", hint="do this")

    assert run_command(fails, program="gpurig", arguments=[]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "gpurig: something happened \\x1b[31m\n  hint: do this\n"


def test_an_interrupt_exits_130(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def waits() -> None:
        raise KeyboardInterrupt

    assert run_command(waits, program="gpurig", arguments=[]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_shows_its_traceback_and_exits_1(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def breaks() -> None:
        raise ZeroDivisionError

    assert run_command(breaks, program="gpurig", arguments=[]) == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said
    assert "bug in gpurig" in said


def test_an_unknown_option_exits_2() -> None:
    @click.command()
    def plain() -> None: ...

    assert run_command(plain, program="gpurig", arguments=["--no-such"]) == 2
