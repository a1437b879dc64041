"""What a user may decide about a box: validated once, remembered for the next `up`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gpurig.common.errors import InputError
from gpurig.common.gitlab_api import checked_url
from gpurig.provisioning.listen import METRICS_LISTEN, split_listen

# The version whose configuration keys the tests hold config.toml against.
RUNNER_IMAGE = "gitlab/gitlab-runner:alpine-v19.4.0"

RunnerType = Literal["project", "group", "instance"]


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", value):
        raise ValueError("use lower-case letters, digits and hyphens, at most 31, for example gpurig")
    return value


def _tag(value: str) -> str:
    if not value.strip() or "," in value or len(value) > 255 or not value.isprintable():
        raise ValueError("a tag is printable text of 1 to 255 characters without a comma")
    return value.strip()


def _line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("one line of printable text")
    return value.strip()


def _text(value: str) -> str:
    if not all(line.isprintable() for line in value.splitlines()):
        raise ValueError("lines of printable text")
    return value.strip()


def _listen(value: str) -> str:
    if value == "off":
        return value
    split_listen(value)
    return value


def _url(value: str) -> str:
    try:
        return checked_url(value)
    except InputError as error:
        raise ValueError(f"{error.message} ({error.hint})") from error


class Settings(BaseModel):
    """What a user decides; everything else is found out.

    Attributes:
        url: GitLab's address.
        runner_type: whose runner it becomes.
        target: the project's or group's number or path; "" for an instance runner.
        name: the instance's name on this box: it names containers and folders.
        runner_image: the image of gitlab-runner.
        helper_image: the image that clones and uploads in jobs; gitlab-runner's own choice where "".
        base_image: what job images stand on; the image builder's default where "".
        pip_index_url: where image builds get Python packages; the base image's own index where "".
        build_ca_bundle: certificate authorities that image builds trust; the base image's where None.
        layout: one runner entry per GPU, or one for the box.
        concurrent: jobs at a time in one runner entry.
        cpu: make a CPU runner, whatever GPUs are there.
        extra_tags: tags besides those that the hardware gives.
        allowed_images: patterns of images that jobs may ask for; any where empty.
        run_untagged: take jobs without tags.
        description: what the runners are called in GitLab, before their hardware; "NAME on HOSTNAME" where "".
        maintenance_note: for GitLab's runner page, before the box's facts.
        maximum_timeout: seconds that a job may take at most; the project's own limit where None.
        locked: a project runner serves no other project.
        protected: take jobs of protected branches and tags only.
        paused: take no job until it is resumed.
        tls_ca_file: the certificate authority that signed GitLab's certificate; the system's where None.
        docker_host: the engine's socket; the default one where "".
        metrics_listen: where the exporter listens, or "off".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, AfterValidator(_url)]
    runner_type: RunnerType = "project"
    target: str = ""
    name: Annotated[str, AfterValidator(_name)] = "gpurig"
    runner_image: str = Field(default=RUNNER_IMAGE, min_length=1)
    helper_image: str = ""
    base_image: str = ""
    pip_index_url: str = ""
    build_ca_bundle: Path | None = None
    layout: Literal["gpu", "box"] = "gpu"
    concurrent: int = Field(default=1, ge=1, le=64)
    cpu: bool = False
    extra_tags: tuple[Annotated[str, AfterValidator(_tag)], ...] = ()
    allowed_images: tuple[str, ...] = ()
    run_untagged: bool = False
    description: Annotated[str, AfterValidator(_line)] = Field(default="", max_length=500)
    maintenance_note: Annotated[str, AfterValidator(_text)] = Field(default="", max_length=700)
    maximum_timeout: int | None = Field(default=None, ge=600)
    locked: bool = True
    protected: bool = False
    paused: bool = False
    tls_ca_file: Path | None = None
    docker_host: str = ""
    metrics_listen: Annotated[str, AfterValidator(_listen)] = METRICS_LISTEN


# The options that are not called as their field.
_OPTIONS = {
    "extra_tags": "--tag",
    "allowed_images": "--allow-image",
    "target": "--project or --group",
    "runner_type": "--project, --group or --instance",
}


def check_name(name: str) -> None:
    """Judge an instance's name, which becomes a part of paths and container names.

    Raises:
        InputError: it cannot be one.
    """
    try:
        _name(name)
    except ValueError as error:
        raise InputError(f"--name: {error}") from error


def make_settings(given: Mapping[str, Any], remembered: Mapping[str, Any] | None = None) -> Settings:
    """Settings from what was given now, and from the last `up` where nothing was given.

    Args:
        given: values by field name; None means not given.
        remembered: the settings of the last `up`, as `Settings.model_dump` wrote them.

    Raises:
        InputError: a value is missing or wrong; the message names the option, never the value.
    """
    known = {name: value for name, value in (remembered or {}).items() if name in Settings.model_fields}
    now = {name: value for name, value in given.items() if value is not None}
    values = known | now
    if not values.get("url"):
        raise InputError("no GitLab to register with", hint="gpurig up --url https://gitlab.example.com --project 42")
    if not values.get("runner_type"):
        raise InputError(
            "whose runner shall this be?",
            hint="--project PATH-OR-ID, --group PATH-OR-ID, or --instance for everybody's",
        )
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else "settings"
        reason = first["msg"].removeprefix("Value error, ")
        option = _OPTIONS.get(field, f"--{field.replace('_', '-')}")
        raise InputError(f"{option}: {reason}", hint="gpurig up --help lists the options") from error
    if (settings.runner_type == "instance") != (not settings.target.strip()):
        raise InputError(
            "a project or group runner needs its project or group", hint="--project 42 or --group tools/llm"
        )
    return settings


# Prefixes of GitLab's tokens that cannot create a runner, and what each is.
# Source: GitLab's documentation, security/tokens, "Token prefixes".
_WRONG_KINDS = {
    "glrt-": "a runner's authentication token",
    "glrtr-": "a runner's registration token",
    "GR1348941": "a runner's registration token of the old kind",
    "glcbt-": "a CI job token",
    "gldt-": "a deploy token",
    "glptt-": "a pipeline trigger token",
    "glft-": "a feed token",
    "glimt-": "an incoming mail token",
    "glagent-": "an agent's token",
    "glsoat-": "a SCIM token",
    "gloas-": "an OAuth application's secret",
    "glffct-": "a feature flags client token",
}


def check_token(token: str) -> str:
    """The user's token, if it is of a kind that may create runners; its value never shows.

    Raises:
        InputError: it is empty, holds white space, or is of another kind.
    """
    cleaned = token.strip()
    if not cleaned:
        raise InputError("the token is empty", hint="put a personal, project or group access token into the file")
    if not cleaned.isascii() or not cleaned.isprintable() or " " in cleaned:
        raise InputError(
            "the token holds characters that no token has", hint="the file holds the token and nothing else"
        )
    for prefix, kind in _WRONG_KINDS.items():
        if cleaned.startswith(prefix):
            raise InputError(
                f"that is {kind}, and it cannot create a runner",
                hint="make an access token (glpat-…) with the scope create_runner: User settings, Access tokens",
            )
    return cleaned
