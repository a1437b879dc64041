"""The options that the stage commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gpurig.evaljobs.stages import RunSettings

_SUITE = click.argument("suite", type=click.Path(path_type=Path))
_OUT = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("report"),
    show_default=True,
    help="The folder of the records and reports.",
)
_ONLY = click.option("--only", multiple=True, metavar="ID", help="Take this sample only; may be repeated.")
_LIMIT = click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Take the first N samples only.")
_MODELS = click.option(
    "--models-dir",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    envvar="GPURIG_MODELS_DIR",
    show_envvar=True,
    help="A folder with models; may be repeated. Then /models, /var/lib/gpurig/models, the bundled ones.",
)
_THREADS = click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="CPU threads; if absent all that this process may use, and one for a tiny model.",
)


@dataclass(frozen=True)
class StageOptions:
    """What the shared options say."""

    suite: Path
    out: Path
    only: tuple[str, ...] = ()
    limit: int | None = None
    folders: tuple[Path, ...] = ()
    threads: int | None = None

    def settings(self) -> RunSettings:
        """The run that these options describe, its suite read.

        Raises:
            InputError: the suite is missing or wrong, or lacks a sample that `only` names.
        """
        from gpurig.evaljobs.llama import LlamaProvider  # noqa: PLC0415 - heavy
        from gpurig.evaljobs.models import STANDARD_FOLDERS  # noqa: PLC0415 - heavy
        from gpurig.evaljobs.stages import RunSettings  # noqa: PLC0415 - heavy
        from gpurig.evaljobs.suite import load_suite  # noqa: PLC0415 - heavy

        suite = load_suite(self.suite)
        return RunSettings(
            suite=suite,
            samples=suite.select(only=self.only, limit=self.limit),
            out=self.out,
            folders=(*self.folders, *STANDARD_FOLDERS),
            provider=LlamaProvider(),
            threads=self.threads,
        )


def stage_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """SUITE, --out, --only and --limit; the command gets `suite`, `out`, `only` and `limit`."""
    for add in (_LIMIT, _ONLY, _OUT, _SUITE):
        command = add(command)
    return command


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--models-dir and --threads; the command gets `folders` and `threads`."""
    for add in (_THREADS, _MODELS):
        command = add(command)
    return command
