"""What the commands below `gpurig models` share: the folder, the catalogues, and how to reach the sources."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from gpurig.common.errors import InputError
from gpurig.common.files import read_text
from gpurig.common.models.fetching import site_catalogues
from gpurig.common.models.gitlab_packages import GitLabAccess
from gpurig.common.models.hub import HubAccess
from gpurig.common.models.resolving import cache_folder
from gpurig.common.models.sources import Access
from gpurig.provisioning.paths import Paths

F = TypeVar("F", bound=Callable[..., Any])


def folder_option(help_text: str) -> Callable[[F], F]:
    """`--dir`; the command gets `folder`, None where the user names none."""
    return click.option("--dir", "folder", type=click.Path(path_type=Path, file_okay=False), help=help_text)


def catalogue_option(command: F) -> F:
    """`--catalogue`, which may be repeated; the command gets `catalogues`."""
    return click.option(
        "--catalogue",
        "catalogues",
        multiple=True,
        type=click.Path(path_type=Path, dir_okay=False),
        help="More models by name (TOML); may be repeated. etc/gpurig/models.toml is read where it is.",
    )(command)


def gitlab_options(command: F) -> F:
    """`--url`, `--token-file` and `--tls-ca-file`, for packages of a GitLab."""
    for add in (
        click.option(
            "--tls-ca-file",
            type=click.Path(path_type=Path, dir_okay=False),
            help="For gitlab: sources: the certificate authority to trust.",
        ),
        click.option(
            "--token-file",
            type=click.Path(path_type=Path, dir_okay=False),
            help="For gitlab: sources: a file with a token.",
        ),
        click.option("--url", metavar="URL", help="For gitlab: sources: the server; in a job CI_SERVER_URL is read."),
    ):
        command = add(command)
    return command


def models_folder(folder: Path | None, paths: Paths) -> Path:
    """Where a box keeps models: the user's wish; the box's folder if this user may write there; else the cache."""
    if folder is not None:
        return folder
    # os.path.exists takes what this user may not see for absent, and goes on to a folder that it may.
    existing = next(one for one in (paths.models, *paths.models.parents) if os.path.exists(one))  # noqa: PTH110
    return paths.models if os.access(existing, os.W_OK | os.X_OK) else cache_folder(os.environ)


def catalogue_files(more: tuple[Path, ...], paths: Paths) -> tuple[Path, ...]:
    """The catalogues beside gpurig's own."""
    return site_catalogues(more, site=paths.config_dir / "models.toml")


def source_access(
    environ: Mapping[str, str], *, url: str | None, token_file: Path | None, tls_ca_file: Path | None
) -> Access:
    """How to reach the hub, and the GitLab that the options or a job's variables name.

    Raises:
        InputError: the token's file is missing or empty.
    """
    address = url or environ.get("CI_SERVER_URL")
    if address is None:
        return Access(HubAccess())
    token = read_text(token_file).strip() if token_file else None
    if token == "":
        raise InputError(f"{token_file} is empty", hint="put the token into it, and nothing else")
    authority = tls_ca_file or (Path(file) if (file := environ.get("CI_SERVER_TLS_CA_FILE")) else None)
    # A job's own token is for the job's own server.
    job_token = environ.get("CI_JOB_TOKEN") if token is None and address == environ.get("CI_SERVER_URL") else None
    return Access(HubAccess(), GitLabAccess(address, private_token=token, job_token=job_token, ca_file=authority))
