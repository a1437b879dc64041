"""What a user may decide about a box: validated once, remembered for the next `up`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gpurig.common.errors import InputError
from gpurig.common.gitlab_api import checked_url
from gpurig.provisioning.listen import METRICS_LISTEN, split_listen

# The version whose configuration keys the tests hold config.toml against.
RUNNER_IMAGE = "gitlab/gitlab-runner:alpine-v19.4.0"

RunnerType = Literal["project", "group", "instance"]
PullPolicy = Literal["always", "if-not-present", "never"]
ServiceKind = Literal["container", "systemd"]

# A month: longer than any job, and short enough for every clock that it is given to.
MOST_WAIT_S = 31 * 24 * 3600


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


def _proxy(value: str) -> str:
    if not value:
        return value
    try:
        parts = urlsplit(value)
        host, secret = parts.hostname, bool(parts.username or parts.password)
    except ValueError as error:
        raise ValueError("not a URL") from error
    if parts.scheme not in {"http", "https", "socks5"} or not host or not value.isprintable():
        raise ValueError("a proxy is http://host:port, https:// or socks5://")
    if secret:
        # `docker inspect` shows a container's environment.
        raise ValueError("it carries a user name or password, which every job could read: use a proxy that needs none")
    return value


def _mirror(value: str) -> str:
    if not re.fullmatch(r"([\w.-]+(:\d+)?(/[\w./-]+)?)?", value, re.ASCII):
        raise ValueError("a registry's host, port and path without https://, for example mirror.example:5000/hub")
    return value.rstrip("/")


def _no_file(value: Any) -> Any:
    return None if value == "" else value


def _no_limit(value: Any) -> Any:
    return None if value == 0 and not isinstance(value, bool) else value


OptionalFile = Annotated[Path | None, BeforeValidator(_no_file)]


class Settings(BaseModel):
    """What a user decides; everything else is found out.

    Attributes:
        url: GitLab's address.
        runner_type: whose runner it becomes.
        target: the project's or group's number or path; "" for an instance runner.
        name: the instance's name on this box: it names containers and folders.
        service: what runs gitlab-runner: a container of the engine, or a service of systemd.
        runner_binary: gitlab-runner's program for the service; the one on PATH where None.
        wait: seconds for running jobs to end before the runner is stopped.
        runner_image: the image of gitlab-runner.
        helper_image: the image that clones and uploads in jobs; gitlab-runner's own choice where "".
        base_image: what job images stand on; the image builder's default where "".
        toolkit_image: where the GPU vendor's compiler for job images comes from; the image builder's default where "".
        pip_index_url: where image builds get Python packages; the base image's own index where "".
        build_ca_bundle: certificate authorities that image builds trust; the base image's where None.
        layout: one runner entry per GPU, or one for the box.
        concurrent: jobs at a time in one runner entry.
        cpu: make a CPU runner, whatever GPUs are there.
        extra_tags: tags besides those that the hardware gives.
        allowed_images: patterns of images that jobs and their services may ask for; any where empty.
        allowed_pull_policies: what jobs may ask for; "never" alone keeps jobs to the images that are on the box.
        run_untagged: take jobs without tags.
        description: what the runners are called in GitLab, before their hardware; "NAME on HOSTNAME" where "".
        maintenance_note: for GitLab's runner page, before the box's facts.
        maximum_timeout: seconds that a job may take at most; the project's own limit where None.
        locked: a project runner serves no other project.
        protected: take jobs of protected branches and tags only.
        paused: take no job until it is resumed.
        http_proxy, https_proxy, no_proxy: of the runner's process, of jobs and of image builds.
        registry_mirror: the registry that the default images come from; Docker Hub where "".
        tls_ca_file: the certificate authority that signed GitLab's certificate; the system's where None.
        docker_host: the engine's socket; the default one where "".
        metrics_listen: where the exporter listens, or "off".
        metrics_web_config: TLS and users for the metrics (docs/metrics.md); plain HTTP where None.
        metrics_insecure: other machines may read the metrics without.
        metrics_dcgm_names: the GPUs' readings under dcgm-exporter's names, too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, AfterValidator(_url)]
    runner_type: RunnerType = "project"
    target: str = ""
    name: Annotated[str, AfterValidator(_name)] = "gpurig"
    service: ServiceKind = "container"
    runner_binary: OptionalFile = None
    wait: int = Field(default=3600, ge=0, le=MOST_WAIT_S)
    runner_image: str = Field(default=RUNNER_IMAGE, min_length=1)
    helper_image: str = ""
    base_image: str = ""
    toolkit_image: str = ""
    pip_index_url: str = ""
    build_ca_bundle: OptionalFile = None
    layout: Literal["gpu", "box"] = "gpu"
    concurrent: int = Field(default=1, ge=1, le=64)
    cpu: bool = False
    extra_tags: tuple[Annotated[str, AfterValidator(_tag)], ...] = ()
    allowed_images: tuple[str, ...] = ()
    allowed_pull_policies: Annotated[tuple[PullPolicy, ...], Field(min_length=1)] = ("if-not-present", "always")
    run_untagged: bool = False
    description: Annotated[str, AfterValidator(_line)] = Field(default="", max_length=500)
    maintenance_note: Annotated[str, AfterValidator(_text)] = Field(default="", max_length=700)
    maximum_timeout: Annotated[Annotated[int, Field(ge=600)] | None, BeforeValidator(_no_limit)] = None
    locked: bool = True
    protected: bool = False
    paused: bool = False
    http_proxy: Annotated[str, AfterValidator(_proxy)] = ""
    https_proxy: Annotated[str, AfterValidator(_proxy)] = ""
    no_proxy: Annotated[str, AfterValidator(_line)] = ""
    registry_mirror: Annotated[str, AfterValidator(_mirror)] = ""
    tls_ca_file: OptionalFile = None
    docker_host: str = ""
    metrics_listen: Annotated[str, AfterValidator(_listen)] = METRICS_LISTEN
    metrics_web_config: OptionalFile = None
    metrics_insecure: bool = False
    metrics_dcgm_names: bool = False

    def remembered(self) -> dict[str, Any]:
        """What the next `up` starts from; a default that is not written down may be another one in the next version."""
        return {"runner_type": self.runner_type, **self.model_dump(mode="json", exclude_defaults=True)}

    def proxies(self) -> tuple[tuple[str, str], ...]:
        """The environment variables that programs read, in both spellings; none where no proxy is set."""
        if not (self.http_proxy or self.https_proxy):
            return ()
        names = ("http_proxy", "https_proxy", "no_proxy")
        both = [(spelt, getattr(self, name)) for name in names for spelt in (name.upper(), name)]
        return tuple((name, value) for name, value in both if value)

    def from_mirror(self, image: str) -> str:
        """A default image's name where it is to come from the mirror."""
        if not self.registry_mirror:
            return image
        # Docker Hub keeps what has no owner under "library".
        return f"{self.registry_mirror}/{image if '/' in image else f'library/{image}'}"


# The options that are not called as their field.
_OPTIONS = {
    "extra_tags": "--tag",
    "allowed_images": "--allow-image",
    "allowed_pull_policies": "--allow-pull-policy",
    "target": "--project or --group",
    "runner_type": "--project, --group or --instance",
}


def is_name(name: str) -> bool:
    """Whether an instance could be called so."""
    try:
        return bool(_name(name))
    except ValueError:
        return False


def check_name(name: str) -> None:
    """Judge an instance's name, which becomes a part of paths and container names.

    Raises:
        InputError: it cannot be one.
    """
    try:
        _name(name)
    except ValueError as error:
        raise InputError(f"--name: {error}") from error


def wait_of(remembered: Mapping[str, Any]) -> int:
    """The `wait` of remembered settings; its default where they have none, or are damaged."""
    value = remembered.get("wait")
    return value if isinstance(value, int) and 0 <= value <= MOST_WAIT_S else int(Settings.model_fields["wait"].default)


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
        field, reason = reason_of(error)
        option = _OPTIONS.get(field, f"--{field.replace('_', '-')}")
        raise InputError(f"{option}: {reason}", hint="gpurig up --help lists the options") from error
    if (settings.runner_type == "instance") != (not settings.target.strip()):
        raise InputError(
            "a project or group runner needs its project or group", hint="--project 42 or --group tools/llm"
        )
    return settings


# What pydantic calls a wrong type, and what is needed instead.
_NEEDED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "path_type": "a text",
    "tuple_type": "a list",
}


def reason_of(error: ValidationError) -> tuple[str, str]:
    """The first field that is wrong, and why: what kind of value it has and what is needed; never its value."""
    first = error.errors(include_url=False)[0]
    field = str(first["loc"][0]) if first["loc"] else "settings"
    return field, _reason(first["type"], first["msg"], first.get("ctx") or {}, first["input"], len(first["loc"]))


def _reason(kind: str, said: str, context: Mapping[str, Any], value: Any, depth: int) -> str:
    where = "an item of it" if depth > 1 else "it"
    if kind in _NEEDED:
        return f"{where} is {_kind_of(value)}, and {_NEEDED[kind]} is needed"
    if kind == "literal_error":
        other = "another text" if isinstance(value, str) and value else _kind_of(value)
        return f"{where} is {other}, and {context['expected']} is needed"
    if kind == "greater_than_equal":
        return f"{context['ge']} is the least"
    if kind == "less_than_equal":
        return f"{context['le']} is the most"
    if kind in {"too_short", "string_too_short"}:
        return "it is empty"
    return said.removeprefix("Value error, ")


def _kind_of(value: Any) -> str:
    """What a value is, in a TOML file's words."""
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "true or false"),
        (str, "a text" if value else "an empty text"),
        (int, "a whole number"),
        (float, "a fraction"),
        ((list, tuple), "a list"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "a date or a table")


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
