"""The options that the stage commands share."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpurig.common.terminal import harmless

if TYPE_CHECKING:
    from gpurig.common.models.resolving import Search
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
_MODEL_OPTIONS = (
    click.option(
        "--models-dir",
        "folders",
        multiple=True,
        type=click.Path(path_type=Path, file_okay=False),
        envvar="GPURIG_MODELS_DIR",
        show_envvar=True,
        help="A folder with models, looked into first; may be repeated. Then come the image, /models, this box, "
        "the cache, and the catalogue's download.",
    ),
    click.option(
        "--models-cache",
        "cache",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="GPURIG_MODELS_CACHE",
        show_envvar=True,
        help="Where downloaded models are kept; ~/.cache/gpurig/models if absent.",
    ),
    click.option(
        "--no-download",
        "--offline",
        "no_download",
        is_flag=True,
        envvar="GPURIG_NO_DOWNLOAD",
        show_envvar=True,
        help="Fail where no folder has a model, instead of downloading it.",
    ),
    click.option(
        "--allow-license",
        "licenses",
        multiple=True,
        metavar="NAME",
        envvar="GPURIG_ALLOW_LICENSE",
        show_envvar=True,
        help="Accept a license with conditions for a download; may be repeated.",
    ),
    click.option(
        "--catalogue",
        "catalogues",
        multiple=True,
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="GPURIG_CATALOGUE",
        show_envvar=True,
        help="More models that may be downloaded by name (TOML); may be repeated.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1, 1024),
        metavar="N",
        help="CPU threads; if absent all that this process may use, and one for a tiny model.",
    ),
    click.option(
        "--parallel",
        type=click.IntRange(1, 256),
        metavar="N",
        help="Samples that are answered at the same time; if absent as many as pay.",
    ),
    click.option(
        "--exact",
        is_flag=True,
        help="One sample after the other: the same bytes in every run, whatever else the run has.",
    ),
)


@dataclass(frozen=True)
class ModelOptions:
    """What the options about models say.

    Attributes:
        folders: looked into first.
        cache: where downloads go; None for the user's own cache.
        licenses: names that the user accepts.
        catalogues: files with more entries.
        threads: CPU threads; None for all that there are.
        parallel: samples that are answered at the same time; None for as many as pay.
        exact: one after the other.
    """

    folders: tuple[Path, ...] = ()
    cache: Path | None = None
    no_download: bool = False
    licenses: tuple[str, ...] = ()
    catalogues: tuple[Path, ...] = ()
    threads: int | None = None
    parallel: int | None = None
    exact: bool = False

    def search(self) -> Search:
        """Where a suite's models are looked for."""
        from gpurig.common.models.fetching import Fetcher, job_access, site_catalogues  # noqa: PLC0415 - heavy
        from gpurig.common.models.resolving import Search, cache_folder, standard_places  # noqa: PLC0415 - heavy
        from gpurig.common.models.transfer import Tools  # noqa: PLC0415 - heavy

        cache = self.cache or cache_folder(os.environ)
        places = standard_places(self.folders, cache)
        if self.no_download:
            return Search(places, without_fetch="; --no-download forbids to fetch it")
        tools = Tools(say=lambda line: click.echo(harmless(line), err=True))
        access = job_access(os.environ)
        return Search(places, Fetcher(cache, access, tools, site_catalogues(self.catalogues), self.licenses))


@dataclass(frozen=True)
class StageOptions:
    """What the shared options say."""

    suite: Path
    out: Path
    only: tuple[str, ...] = ()
    limit: int | None = None
    models: ModelOptions = field(default_factory=ModelOptions)

    def settings(self) -> RunSettings:
        """The run that these options describe, its suite read.

        Raises:
            InputError: the suite is missing or wrong, or lacks a sample that `only` names.
        """
        from gpurig.evaljobs.llama import LlamaProvider  # noqa: PLC0415 - heavy
        from gpurig.evaljobs.stages import RunSettings  # noqa: PLC0415 - heavy
        from gpurig.evaljobs.suites.suite import load_suite  # noqa: PLC0415 - heavy
        from gpurig.evaljobs.suites.trials import select_trials  # noqa: PLC0415 - heavy

        suite = load_suite(self.suite)
        return RunSettings(
            suite=suite,
            trials=select_trials(suite, only=self.only, limit=self.limit),
            out=self.out,
            search=self.models.search(),
            provider=LlamaProvider(),
            threads=self.models.threads,
            parallel=self.models.parallel,
            exact=self.models.exact,
        )


def stage_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """SUITE, --out, --only and --limit; the command gets `suite`, `out`, `only` and `limit`."""
    for add in (_LIMIT, _ONLY, _OUT, _SUITE):
        command = add(command)
    return command


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options about models; the command gets `models`, a ModelOptions."""
    names = [each.name for each in dataclasses.fields(ModelOptions)]

    @functools.wraps(command)
    def with_models(**options: Any) -> Any:
        models = ModelOptions(**{name: options.pop(name) for name in names})
        return command(**options, models=models)

    wrapped: Callable[..., Any] = with_models
    for add in reversed(_MODEL_OPTIONS):
        wrapped = add(wrapped)
    return wrapped
