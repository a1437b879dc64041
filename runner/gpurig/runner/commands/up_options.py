"""The options of `gpurig up` that are settings, and where a setting comes from: the flag, the file, the environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from gpurig.common.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--url", help="GitLab's address, for example https://gitlab.example.com."),
    click.option("--project", metavar="PATH-OR-ID", help="Make it a project's runner."),
    click.option("--group", metavar="PATH-OR-ID", help="Make it a group's runner."),
    click.option("--instance", is_flag=True, default=None, help="Make it everybody's runner on that GitLab."),
    click.option("--token-file", metavar="FILE", help="A token of scope create_runner; - for stdin. Or GPURIG_TOKEN."),
    click.option(
        "--settings",
        "settings_file",
        type=click.Path(path_type=Path),
        help="A TOML file with settings, instead of those of the last run.",
    ),
)
_MORE = (
    click.option("--layout", type=click.Choice(["gpu", "box"]), help="One runner entry per GPU, or one for all. [gpu]"),
    click.option("--concurrent", type=click.IntRange(1, 64), help="Jobs at a time in one runner entry. [1]"),
    click.option("--cpu/--no-cpu", default=None, help="Make a CPU runner, whatever GPUs are there."),
    click.option("--tag", "extra_tags", multiple=True, help="One more tag; may be repeated; '' for none."),
    click.option("--description", help="What GitLab calls the runners, before their hardware. [NAME on HOST]"),
    click.option("--maintenance-note", help="For GitLab's runner page, before the box's facts."),
    click.option(
        "--maximum-timeout", type=click.IntRange(0), help="Seconds a job may take (600 or more; 0: no limit)."
    ),
    click.option("--run-untagged/--no-run-untagged", default=None, help="Take jobs without tags, too. [no]"),
    click.option("--locked/--no-locked", default=None, help="A project's runner serves no other project. [locked]"),
    click.option("--protected/--no-protected", default=None, help="Only jobs of protected branches and tags. [no]"),
    click.option("--paused/--no-paused", default=None, help="Take no jobs for now. [no]"),
    click.option("--allow-image", "allowed_images", multiple=True, help="Images jobs may use (pattern); '' for any."),
    click.option(
        "--allow-pull-policy",
        "allowed_pull_policies",
        type=click.Choice(["if-not-present", "always", "never"]),
        multiple=True,
        help="How jobs may get images; may be repeated. [the first two]",
    ),
    click.option("--metrics-listen", metavar="ADDRESS:PORT", help="Where metrics are served, or off. [127.0.0.1:9476]"),
    click.option(
        "--metrics-web-config",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="TLS and users for the metrics (docs/metrics.md).",
    ),
    click.option(
        "--metrics-insecure/--no-metrics-insecure", default=None, help="Let others read the metrics without. [no]"
    ),
    click.option(
        "--metrics-dcgm-names/--no-metrics-dcgm-names", default=None, help="Add dcgm-exporter's metric names. [no]"
    ),
    click.option("--tls-ca-file", type=click.Path(path_type=Path), help="Who signed GitLab's certificate (PEM)."),
    click.option("--http-proxy", envvar=["HTTP_PROXY", "http_proxy"], help="Proxy of the runner and its jobs."),
    click.option("--https-proxy", envvar=["HTTPS_PROXY", "https_proxy"], help="The same for https."),
    click.option("--no-proxy", envvar=["NO_PROXY", "no_proxy"], help="Hosts that need no proxy, by commas."),
    click.option("--docker-host", envvar="DOCKER_HOST", help="The engine's socket. [unix:///var/run/docker.sock]"),
    click.option("--registry-mirror", metavar="HOST[/PATH]", help="Where the default images come from. [Docker Hub]"),
    click.option(
        "--service",
        type=click.Choice(["container", "systemd"]),
        help="What runs gitlab-runner: its container, or a service around its package. [container]",
    ),
    click.option(
        "--runner-binary",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="gitlab-runner's program for --service systemd. [the one on PATH]",
    ),
    click.option("--wait", type=click.IntRange(0), help="Seconds for running jobs to end. [3600]"),
    click.option("--runner-image", help="gitlab-runner's image. [the official one, pinned]"),
    click.option("--helper-image", help="gitlab-runner's helper image. [its own choice]"),
    click.option("--base-image", help="What job images stand on. [python:3.12-slim, pinned]"),
    click.option("--toolkit-image", help="Where the GPU vendor's compiler comes from. [the backend's own]"),
    click.option(
        "--image-archive",
        "archives",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Images from `docker save`, loaded where some are missing.",
    ),
    click.option("--pip-index-url", help="Where image builds get Python packages."),
    click.option("--build-ca-bundle", type=click.Path(path_type=Path), help="What image builds trust (PEM)."),
)
_LISTS = ("extra_tags", "allowed_images", "allowed_pull_policies")
_FILES = ("tls_ca_file", "build_ca_bundle", "metrics_web_config", "runner_binary")


def place_options(command: F) -> F:
    """Which GitLab, whose runner, and where the settings are."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def settings_options(command: F) -> F:
    """What else a user may decide."""
    for option in reversed(_MORE):
        command = option(command)
    return command


@dataclass(frozen=True)
class Given:
    """What the user gave now.

    Attributes:
        now: settings that count whatever was said before, by field name.
        base: what counts where `now` is silent and a settings file was given; None where none was.
        environment: what counts before the remembered settings.
        name: the instance's name.
        token_file: as `--token-file`.
    """

    now: Mapping[str, Any]
    base: Mapping[str, Any] | None
    environment: Mapping[str, Any]
    name: str
    token_file: str | None = None

    def wanted(self) -> dict[str, Any]:
        """Everything that was given, the remembered settings aside."""
        values = {**self.environment, **(self.base or {}), **self.now}
        return {key: Path(value) if key in _FILES and value else value for key, value in values.items() if value != ""}


def read_given(context: click.Context, options: Mapping[str, Any], *, name: str) -> Given:
    """Flags before the file before the environment.

    Args:
        context: it knows which option came from where.
        options: the values of `place_options` and `settings_options`, by parameter.
        name: the instance's.

    Raises:
        InputError: options exclude each other, or the file is wrong.
    """
    values = dict(options)
    token_file, path = values.pop("token_file"), values.pop("settings_file")
    values.pop("archives")
    now = {
        **{key: value for key, value in values.items() if key not in {"project", "group", "instance"}},
        **whose(values["project"], values["group"], instance=bool(values["instance"])),
    }
    now |= {key: tuple(one for one in now[key] if one) if now[key] else None for key in _LISTS}
    # Remembered for the next run, which may start in another folder. "" is no file: it takes the setting back.
    now |= {key: str(now[key].absolute()) if now[key] != Path() else "" for key in _FILES if now[key] is not None}
    from_environment = {
        key: value
        for key, value in now.items()
        if value is not None and context.get_parameter_source(key) is ParameterSource.ENVIRONMENT
    }
    now = {key: value for key, value in now.items() if value is not None and key not in from_environment}
    base: dict[str, Any] | None = None
    if path is not None:
        from gpurig.provisioning.settings_file import read_settings_file  # noqa: PLC0415 - pydantic is heavy

        read = read_settings_file(path)
        base = dict(read.values)
        token_file = token_file or read.token_file
        if context.get_parameter_source("name") is not ParameterSource.COMMANDLINE:
            name = str(base.get("name", name))
    return Given({**now, "name": name}, base, from_environment, name, token_file)


def whose(project: str | None, group: str | None, *, instance: bool) -> dict[str, str]:
    """`runner_type` and `target` of the options --project, --group and --instance; nothing where none was given.

    Raises:
        InputError: more than one was.
    """
    chosen = [
        (kind, target)
        for kind, target in (("project", project), ("group", group), ("instance", "" if instance else None))
        if target is not None
    ]
    if len(chosen) > 1:
        raise InputError("--project, --group and --instance exclude each other", hint="give one of them")
    return {"runner_type": chosen[0][0], "target": chosen[0][1]} if chosen else {}
