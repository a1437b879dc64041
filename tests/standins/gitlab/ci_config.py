"""The part of .gitlab-ci.yml that the tests use; any other keyword is refused, so that no test relies on less.

Values come from GitLab's keyword reference; the text is first held against GitLab's own JSON schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

_GLOBAL = frozenset({"stages", "variables", "image", "default", "before_script", "after_script"})
_JOB = frozenset(
    {"stage", "tags", "image", "services", "script", "before_script", "after_script", "variables", "needs"}
    | {"dependencies", "artifacts", "timeout", "when"}
)
_DEFAULTS = ("image", "tags", "before_script", "after_script", "artifacts", "timeout")
_STAGES = ("build", "test", "deploy")
_REPORT_FORMATS = {"junit": "gzip", "metrics": "gzip", "dotenv": "gzip", "codequality": "raw", "cyclonedx": "gzip"}
_DEFAULT_TIMEOUT_S = 3600
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class ConfigError(ValueError):
    """The text is not a .gitlab-ci.yml, or uses what the stand-in does not know."""


@dataclass(frozen=True)
class ArtifactSpec:
    """One upload that the runner is told to make: the archive of `paths`, or one report."""

    paths: tuple[str, ...]
    file_type: str = "archive"
    file_format: str = "zip"
    name: str = ""
    when: str = "on_success"
    expire_in: str = ""
    exclude: tuple[str, ...] = ()
    untracked: bool = False


@dataclass(frozen=True)
class ServiceSpec:
    """A container beside the job's; `variables` are its own, `user` is whom it runs as."""

    name: str
    alias: str = ""
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    pull_policy: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    user: str = ""


@dataclass(frozen=True)
class JobSpec:
    """One job of a configuration.

    Attributes:
        needs: names of jobs that must have succeeded; None where the stages' order decides.
        dependencies: names of jobs whose artifacts it gets; None for GitLab's default.
        timeout_s: seconds.
    """

    name: str
    stage: str
    script: tuple[str, ...]
    after_script: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    image: str = ""
    entrypoint: tuple[str, ...] = ()
    pull_policy: tuple[str, ...] = ()
    services: tuple[ServiceSpec, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] | None = None
    dependencies: tuple[str, ...] | None = None
    artifacts: tuple[ArtifactSpec, ...] = ()
    when: str = "on_success"
    timeout_s: int = _DEFAULT_TIMEOUT_S


@dataclass(frozen=True)
class CiConfig:
    """A whole configuration."""

    stages: tuple[str, ...]
    jobs: tuple[JobSpec, ...]
    variables: Mapping[str, str]


def parse(text: str) -> CiConfig:
    """Read a configuration.

    Raises:
        ConfigError: with what is wrong, in one line.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"Invalid configuration format: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError("Invalid configuration format")
    check_schema(document)
    jobs = {str(key): value for key, value in document.items() if key not in _GLOBAL and not str(key).startswith(".")}
    if not jobs:
        raise ConfigError("jobs config should contain at least one visible job")
    stages = (".pre", *document.get("stages", _STAGES), ".post")
    default = {key: document[key] for key in _DEFAULTS if key in document} | document.get("default", {})
    _refuse_unknown("default", default, frozenset(_DEFAULTS))
    specs = tuple(_job(name, {**default, **_mapping(name, body)}, stages) for name, body in jobs.items())
    names = {spec.name for spec in specs}
    for spec in specs:
        missing = {*(spec.needs or ()), *(spec.dependencies or ())} - names
        if missing:
            raise ConfigError(f"{spec.name} job: undefined need: {min(missing)}")
    return CiConfig(stages, tuple(sorted(specs, key=lambda spec: stages.index(spec.stage))), _variables(document))


def check_schema(document: Mapping[str, Any]) -> None:
    """Hold a parsed configuration against GitLab's JSON schema, which check-jsonschema carries.

    Raises:
        ConfigError: it does not fit.
    """
    from importlib import resources

    import jsonschema

    source = resources.files("check_jsonschema").joinpath("builtin_schemas/vendor/gitlab-ci.json")
    validator = jsonschema.Draft7Validator(json.loads(source.read_text(encoding="utf-8")))
    error = jsonschema.exceptions.best_match(validator.iter_errors(document))
    if error is not None:
        raise ConfigError(f"{'/'.join(map(str, error.absolute_path)) or 'config'}: {error.message}")


def _job(name: str, body: Mapping[str, Any], stages: Sequence[str]) -> JobSpec:
    _refuse_unknown(name, body, _JOB)
    stage = body.get("stage", "test")
    if stage not in stages:
        raise ConfigError(f"{name} job: chosen stage {stage} does not exist; available stages are {', '.join(stages)}")
    image = body.get("image", "")
    image = {"name": image} if isinstance(image, str) else image
    return JobSpec(
        name=name,
        stage=stage,
        script=(*_lines(body.get("before_script", ())), *_lines(body["script"])),
        after_script=_lines(body.get("after_script", ())),
        tags=tuple(body.get("tags", ())),
        image=image["name"],
        entrypoint=tuple(image.get("entrypoint", ())),
        pull_policy=_lines(image.get("pull_policy", ())),
        services=tuple(_service(one) for one in body.get("services", ())),
        variables=_variables(body),
        needs=_needs(body.get("needs")),
        dependencies=_dependencies(body),
        artifacts=_artifacts(body.get("artifacts", {})),
        when=body.get("when", "on_success"),
        timeout_s=_seconds(body["timeout"]) if "timeout" in body else _DEFAULT_TIMEOUT_S,
    )


def _service(body: str | Mapping[str, Any]) -> ServiceSpec:
    if isinstance(body, str):
        return ServiceSpec(body)
    _refuse_unknown("services", body, frozenset("name alias command entrypoint pull_policy variables docker".split()))  # noqa: SIM905 - one line
    _refuse_unknown("services/docker", body.get("docker", {}), frozenset({"user"}))
    return ServiceSpec(
        name=body["name"],
        alias=body.get("alias", ""),
        command=tuple(body.get("command", ())),
        entrypoint=tuple(body.get("entrypoint", ())),
        pull_policy=_lines(body.get("pull_policy", ())),
        variables=_variables(body),
        user=str(body.get("docker", {}).get("user", "")),
    )


def _artifacts(body: Mapping[str, Any]) -> tuple[ArtifactSpec, ...]:
    _refuse_unknown("artifacts", body, frozenset("paths reports when expire_in name exclude untracked".split()))  # noqa: SIM905 - one line
    common = {"when": body.get("when", "on_success"), "expire_in": body.get("expire_in", "")}
    specs = []
    if body.get("paths") or body.get("untracked"):
        specs.append(
            ArtifactSpec(
                paths=tuple(body.get("paths", ())),
                name=body.get("name", ""),
                exclude=tuple(body.get("exclude", ())),
                untracked=body.get("untracked", False),
                **common,
            )
        )
    for kind, paths in body.get("reports", {}).items():
        if kind not in _REPORT_FORMATS:
            raise ConfigError(f"artifacts:reports:{kind} is not known to the stand-in")
        # Reports are uploaded whatever the job's end [lib/gitlab/ci/build/artifacts: `when` is always for reports].
        specs.append(
            ArtifactSpec(
                paths=_lines(paths),
                file_type=kind,
                file_format=_REPORT_FORMATS[kind],
                name=f"{kind}.xml" if kind == "junit" else f"{kind}.txt",
                when="always",
                expire_in=common["expire_in"],
            )
        )
    return tuple(specs)


def _needs(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise ConfigError("needs must be a list")
    return tuple(item if isinstance(item, str) else item["job"] for item in value)


def _dependencies(body: Mapping[str, Any]) -> tuple[str, ...] | None:
    if "dependencies" in body:
        return tuple(body["dependencies"])
    if "needs" not in body:
        return None
    return tuple(
        item if isinstance(item, str) else item["job"]
        for item in body["needs"]
        if isinstance(item, str) or item.get("artifacts", True)
    )


def _variables(body: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: str(value["value"] if isinstance(value, dict) else value)
        for key, value in body.get("variables", {}).items()
    }


def _lines(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, (list, tuple)):
        return tuple(line for item in value for line in _lines(item))
    raise ConfigError(f"not a string or a list of strings: {value!r}")


def _seconds(text: str) -> int:
    """ "90m", "1h 30m" or "2 hours" in seconds."""
    total, number = 0, ""
    for part in text.replace("and", " ").split():
        digits = number + "".join(character for character in part if character.isdigit())
        unit = part.lstrip("0123456789")[:1]
        if not unit:
            number = digits
            continue
        if not digits or unit not in _UNITS_S:
            raise ConfigError(f"timeout config should be a duration: {text!r}")
        total, number = total + int(digits) * _UNITS_S[unit], ""
    return total + int(number or 0)


def _mapping(name: str, body: object) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise ConfigError(f"{name} config should implement the script keyword")
    return body


def _refuse_unknown(where: str, body: Mapping[str, Any], known: frozenset[str]) -> None:
    unknown = sorted(set(body) - known)
    if unknown:
        raise ConfigError(f"{where} config contains unknown keys: {', '.join(unknown)}")
