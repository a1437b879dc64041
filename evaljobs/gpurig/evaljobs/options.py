"""The options that the stage commands share."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpurig.common.terminal import harmless
from gpurig.evaljobs.suites.selection import EVERYTHING, Selection, Shard

if TYPE_CHECKING:
    from gpurig.common.models.resolving import Search
    from gpurig.evaljobs.engine import PrefixSettings
    from gpurig.evaljobs.stages import RunSettings

_SUITE = click.argument("suite", type=click.Path(path_type=Path))
_OUT = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("report"),
    show_default=True,
    help="The folder of the records and reports.",
)
_SELECTION_OPTIONS = (
    click.option("--only", multiple=True, metavar="ID", help="Take this sample only; may be repeated."),
    click.option(
        "--tag",
        "tags",
        multiple=True,
        metavar="TAG",
        help="Take samples with this tag, or without it (!TAG); A,B wants both. May be repeated: any of them.",
    ),
    click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Take N random samples, always the same."),
    click.option(
        "--sample-seed",
        "seed",
        type=click.IntRange(min=0),
        default=1,
        show_default=True,
        metavar="SEED",
        help="Which random samples --sample takes.",
    ),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Take the first N samples only."),
    click.option(
        "--generator", "generators", multiple=True, metavar="NAME", help="Ask this generator only; may be repeated."
    ),
    click.option(
        "--shard",
        callback=lambda _context, _option, text: read_shard(text, os.environ),
        metavar="I/N",
        help="Take part I of N; auto: the part of this job of a `parallel: N` (CI_NODE_INDEX of CI_NODE_TOTAL).",
    ),
)
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
    click.option(
        "--prefix-cache",
        "prefix_cache",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="GPURIG_PREFIX_CACHE",
        show_envvar=True,
        help="A folder of this project's own that keeps what prompts begin with, computed, for the next run.",
    ),
    click.option(
        "--prefix-cache-limit",
        "prefix_limit_gib",
        type=click.FloatRange(min=0, min_open=True, max=2**20),
        default=4.0,
        show_default=True,
        metavar="GIB",
        help="Of that folder; what was used least recently goes.",
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
        prefix_cache: the folder for prompts' beginnings; None for none.
        prefix_limit_gib: what it may hold.
    """

    folders: tuple[Path, ...] = ()
    cache: Path | None = None
    no_download: bool = False
    licenses: tuple[str, ...] = ()
    catalogues: tuple[Path, ...] = ()
    threads: int | None = None
    parallel: int | None = None
    exact: bool = False
    prefix_cache: Path | None = None
    prefix_limit_gib: float = 4.0

    def prefixes(self) -> PrefixSettings | None:
        """Where prompts' beginnings are kept between runs."""
        from gpurig.evaljobs.engine import PrefixSettings  # noqa: PLC0415 - heavy

        if self.prefix_cache is None:
            return None
        if self.exact:
            _say("the prefix cache is not used with --exact")
            return None
        return PrefixSettings(self.prefix_cache, int(self.prefix_limit_gib * 2**30), _say)

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
    selection: Selection = EVERYTHING
    models: ModelOptions = field(default_factory=ModelOptions)
    allowed: tuple[str, ...] = ()

    def settings(self) -> RunSettings:
        """The run that these options describe, its suite read.

        Raises:
            InputError: the suite is missing or wrong, or lacks what the selection names.
        """
        from gpurig.evaljobs.llama import LlamaProvider  # noqa: PLC0415 - heavy
        from gpurig.evaljobs.stages import RunSettings  # noqa: PLC0415 - heavy
        from gpurig.evaljobs.suites.suite import load_suite  # noqa: PLC0415 - heavy
        from gpurig.evaljobs.suites.trials import select_trials  # noqa: PLC0415 - heavy

        suite = load_suite(self.suite)
        return RunSettings(
            suite=suite,
            trials=select_trials(suite, self.selection),
            out=self.out,
            search=self.models.search(),
            provider=LlamaProvider(),
            threads=self.models.threads,
            parallel=self.models.parallel,
            exact=self.models.exact,
            prefixes=self.models.prefixes(),
            environ=dict(os.environ),
            allowed=frozenset(self.allowed),
        )


def _say(line: str) -> None:
    """Tell a person; a progress bar that stands in the line is drawn again below."""
    click.echo(("\r\x1b[K" if sys.stderr.isatty() else "") + harmless(line), err=True)


allow_check_option = click.option(
    "--allow-check",
    "allowed",
    multiple=True,
    metavar="NAME",
    help="Let this check of an installed package run; may be repeated. It is code with this job's rights.",
)


def stage_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """SUITE, --out and what selects samples; the command gets `suite`, `out` and `selection`, a Selection."""
    names = [each.name for each in dataclasses.fields(Selection)]

    @functools.wraps(command)
    def with_selection(**options: Any) -> Any:
        selection = Selection(**{name: options.pop(name) for name in names})
        return command(**options, selection=selection)

    wrapped: Callable[..., Any] = with_selection
    for add in (*reversed(_SELECTION_OPTIONS), _OUT, _SUITE):
        wrapped = add(wrapped)
    return wrapped


def read_shard(text: str | None, environ: Mapping[str, str]) -> Shard | None:
    """The shard that `--shard` means; "auto" is that of a GitLab job with `parallel`, and none in any other job.

    Raises:
        click.BadParameter: it is none.
    """
    if text is None:
        return None
    if text == "auto":
        if "CI_NODE_INDEX" not in environ:
            return None
        text = f"{environ['CI_NODE_INDEX']}/{environ.get('CI_NODE_TOTAL', '')}"
    found = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", text)
    if found is None or int(found[1]) > int(found[2]):
        raise click.BadParameter(f'"{text}" is no part: write I/N with I from 1 to N, or auto')
    return Shard(int(found[1]), int(found[2]))


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
