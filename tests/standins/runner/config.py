"""config.toml: read, held against gitlab-runner's own keys and types, refused where this runner would do less."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from standins.runner.config_keys import DOCKER, GLOBAL, RUNNER

# What this runner acts on, or what changes nothing in the tests.
_DONE_GLOBAL = frozenset({"concurrent", "check_interval", "log_level", "log_format", "listen_address", "runners"})
_DONE_RUNNER = frozenset(
    {"name", "limit", "request_concurrency", "url", "id", "token", "token_obtained_at", "token_expires_at"}
    | {"tls-ca-file", "executor", "environment", "docker", "clone_url", "builds_dir", "output_limit", "feature_flags"}
)
_DONE_DOCKER = frozenset(
    {"hostname", "image", "runtime", "memory", "memory_swap", "memory_reservation", "cpuset_cpus", "cpus", "cpu_shares"}
    | {"privileged", "services_privileged", "disable_entrypoint_overwrite", "user", "group_add", "cap_add", "cap_drop"}
    | {"oom_kill_disable", "oom_score_adjust", "security_opt", "services_security_opt", "devices", "gpus", "ulimit"}
    | {"device_cgroup_rules", "disable_cache", "volumes", "extra_hosts", "network_mode", "pid_mode", "ipcmode", "dns"}
    | {"allowed_images", "allowed_pull_policies", "pull_policy", "shm_size", "tmpfs", "sysctls", "helper_image"}
    | {"container_labels", "cgroup_parent", "userns_mode", "host"}
    | {"allowed_services", "service_gpus", "services_devices", "wait_for_services_timeout"}
)
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "*string": (str,),
    "int": (int,),
    "int64": (int,),
    "*int": (int,),
    "bool": (bool,),
    "*bool": (bool,),
    "[]string": (list,),
    "[]DockerPullPolicy": (list,),
    "StringOrArray": (str, list),
    "map[string]string": (dict,),
    "map[string][]string": (dict,),
    "map[string]bool": (dict,),
    "DockerSysCtls": (dict,),
    "*DockerConfig": (dict,),
    "[]*RunnerConfig": (list,),
}


class ConfigError(ValueError):
    """config.toml is not what gitlab-runner would take, or asks for what this runner does not do."""


@dataclass(frozen=True)
class Entry:
    """One [[runners]]; `docker` holds the keys of [runners.docker] as they are written."""

    name: str
    url: str
    token: str = field(repr=False)
    limit: int = 0
    request_concurrency: int = 1
    ca_file: str = ""
    environment: tuple[str, ...] = ()
    builds_dir: str = "/builds"
    clone_url: str = ""
    output_limit_bytes: int = 4096 * 1024
    legacy_bash_eval: bool = False
    docker: Mapping[str, Any] = field(default_factory=dict)

    @property
    def short_token(self) -> str:
        """What names the runner in labels: nine characters after the prefix [helpers/shorten_token.go]."""
        bare = self.token.removeprefix("glrt-")
        if bare[:3] in {"t1_", "t2_", "t3_"}:
            bare = bare[3:]
        return bare[:9]

    @property
    def pull_policies(self) -> tuple[str, ...]:
        value = self.docker.get("pull_policy") or ["always"]
        return (value,) if isinstance(value, str) else tuple(value)


@dataclass(frozen=True)
class Config:
    """A whole config.toml. `check_interval_s`: seconds between two requests of one entry."""

    concurrent: int
    check_interval_s: float
    entries: tuple[Entry, ...]


def load(path: Path) -> Config:
    """Read the file.

    Raises:
        ConfigError: with the key that is wrong.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    _check("", document, GLOBAL, _DONE_GLOBAL)
    if document.get("concurrent", 0) < 1:
        raise ConfigError("concurrent must be at least 1")
    return Config(
        concurrent=document["concurrent"],
        check_interval_s=float(document.get("check_interval") or 3),
        entries=tuple(_entry(table) for table in document.get("runners", [])),
    )


def _entry(table: Mapping[str, Any]) -> Entry:
    _check("runners.", table, RUNNER, _DONE_RUNNER)
    if table.get("executor") != "docker":
        raise ConfigError(f"runners.executor is {table.get('executor')!r}, and this runner has docker only")
    docker = table.get("docker")
    if docker is None:
        raise ConfigError("runners.docker is missing")
    _check("runners.docker.", docker, DOCKER, _DONE_DOCKER)
    for name in ("url", "token"):
        if not table.get(name):
            raise ConfigError(f"runners.{name} is missing")
    return Entry(
        name=table.get("name", ""),
        url=table["url"].rstrip("/"),
        token=table["token"],
        limit=table.get("limit", 0),
        request_concurrency=max(1, table.get("request_concurrency", 1)),
        ca_file=table.get("tls-ca-file", ""),
        environment=tuple(table.get("environment", ())),
        builds_dir=table.get("builds_dir") or "/builds",
        clone_url=table.get("clone_url", ""),
        output_limit_bytes=(table.get("output_limit") or 4096) * 1024,
        legacy_bash_eval=_flags(table)["FF_USE_LEGACY_BASH_EVAL"],
        docker=docker,
    )


def _flags(table: Mapping[str, Any]) -> dict[str, bool]:
    # The second did until some version before 19.4 what is the default there now, and is not read any more.
    flags = {"FF_USE_LEGACY_BASH_EVAL": False, "FF_USE_NEW_BASH_EVAL_STRATEGY": False}
    for name, value in (table.get("feature_flags") or {}).items():
        if name not in flags:
            raise ConfigError(f"the tests' runner does not do the feature flag {name}")
        if not isinstance(value, bool):
            raise ConfigError(f"the feature flag {name} must be a bool, not {type(value).__name__}")
        flags[name] = value
    return flags


def _check(prefix: str, table: Mapping[str, Any], known: Mapping[str, str], done: frozenset[str]) -> None:
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"gitlab-runner knows no key {prefix}{key}")
        types = _TYPES.get(known[key])
        if types is not None and (not isinstance(value, types) or (isinstance(value, bool) and bool not in types)):
            raise ConfigError(f"{prefix}{key} must be {known[key]}, not {type(value).__name__}")
        if known[key] == "[]string" and not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{prefix}{key} must be a list of strings")
        if key not in done and value not in (None, "", 0, False, [], {}):
            raise ConfigError(f"the tests' runner does not do {prefix}{key}")
