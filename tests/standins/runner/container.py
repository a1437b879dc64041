"""The build container: settings of config.toml as gitlab-runner passes them on [executors/docker/docker.go]."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound

from standins.runner import devices
from standins.runner.payload import Payload, expand

LABEL = "com.gitlab.gitlab-runner"
_FIND_SHELL = (
    "for s in /usr/local/bin/bash /usr/bin/bash /bin/bash /usr/local/bin/sh /usr/bin/sh /bin/sh /busybox/sh; do"
)
_COMMAND = ["sh", "-c", _FIND_SHELL + ' [ -x "$s" ] && exec "$s"; done; echo shell not found; exit 1']


class SystemFailure(Exception):  # noqa: N818 - gitlab-runner's word for it
    """The runner, not the script, is why the job failed; `reason` is GitLab's word."""

    def __init__(self, message: str, reason: str = "runner_system_failure") -> None:
        super().__init__(message)
        self.reason = reason


def labels(payload: Payload, kind: str) -> dict[str, str]:
    """gitlab-runner's labels [executors/docker/internal/labels/labels.go]."""
    info, git = payload.body["job_info"], payload.body["git_info"]
    values = {
        "job.id": payload.id,
        "job.url": payload.environment.get("CI_JOB_URL", ""),
        "job.sha": git["sha"],
        "job.before_sha": git["before_sha"],
        "job.ref": git["ref"],
        "job.timeout": _go_duration(payload.timeout_s),
        "project.id": info["project_id"],
        "project.runner_id": payload.slot,
        "pipeline.id": info["pipeline_id"],
        "runner.id": payload.entry.short_token,
        "runner.local_id": payload.slot,
        "runner.system_id": payload.system_id,
        "managed": "true",
        "type": kind,
    }
    return {f"{LABEL}.{name}": str(value) for name, value in values.items()}


def _go_duration(seconds: int) -> str:
    """As Go prints a duration: 1h0m0s."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"


def choose_image(client: docker.DockerClient, payload: Payload) -> str:
    """The job's image, or the entry's; present on the engine afterwards.

    Raises:
        SystemFailure: not allowed, or not to be had under the pull policy.
    """
    settings, wanted = payload.entry.docker, payload.body.get("image") or {}
    default = expand(settings.get("image", ""), payload.environment)
    name = expand(wanted.get("name") or "", payload.environment) or default
    if not name:
        raise SystemFailure("no Docker image specified to run the build in", "runner_configuration_error")
    allowed = settings.get("allowed_images") or []
    if name != default and allowed and not any(devices.matches(pattern, name) for pattern in allowed):
        raise SystemFailure(f"disallowed image: {name} is not in allowed_images", "runner_configuration_error")
    provide(client, payload, name, wanted.get("pull_policy") or ())
    return name


def provide(client: docker.DockerClient, payload: Payload, name: str, wanted: Sequence[str]) -> None:
    """Have an image on the engine, by the policies that are wanted or the entry's.

    Raises:
        SystemFailure: a policy is not allowed, or none of them has it.
    """
    settings = payload.entry.docker
    policies = tuple(wanted) or payload.entry.pull_policies
    permitted = settings.get("allowed_pull_policies") or payload.entry.pull_policies
    if not set(policies) <= set(permitted):
        raise SystemFailure(
            f"pull_policy {list(policies)} is not one of allowed_pull_policies {list(permitted)}",
            "runner_configuration_error",
        )
    problems = [problem for policy in policies if (problem := _provide(client, name, policy)) is not None]
    if len(problems) == len(policies):
        raise SystemFailure(f"failed to pull image {name}: {'; '.join(problems)}", "image_pull_failure")


def _provide(client: docker.DockerClient, name: str, policy: str) -> str | None:
    """None once the image is there, else what is wrong."""
    if policy != "always":
        try:
            client.images.get(name)
        except ImageNotFound:
            if policy == "never":
                return f"policy never: no such image {name}"
        else:
            return None
    try:
        client.images.pull(name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest")
    except APIError as error:
        return f"policy {policy}: {error.explanation or error}"
    return None


def binds(client: docker.DockerClient, payload: Payload) -> list[str]:
    """`volumes` and the builds folder; a path alone becomes a volume that the next job finds again."""
    found = [volume for volume in payload.entry.docker.get("volumes", []) if ":" in volume]
    alone = [volume for volume in payload.entry.docker.get("volumes", []) if ":" not in volume]
    taken = {volume.split(":")[1] for volume in found}
    unique = f"{payload.entry.token}-{payload.system_id}-{payload.project_id}-{payload.slot}"
    owner = "runner-" + hashlib.sha256(unique.encode()).hexdigest()[:32]
    for target in [*alone, *([] if payload.entry.builds_dir in {*taken, *alone} else [payload.entry.builds_dir])]:
        name = f"{owner}-cache-{hashlib.md5(target.encode(), usedforsecurity=False).hexdigest()}"
        client.volumes.create(name, labels=labels(payload, "cache"))
        found.append(f"{name}:{target}")
    return found


def specification(payload: Payload, image: str, volumes: list[str], hosts: list[str]) -> dict[str, Any]:
    """What POST /containers/create gets; `hosts` are its services, as "alias:address".

    Raises:
        SystemFailure: a setting that the engine's types cannot hold.
    """
    settings = payload.entry.docker
    wanted = payload.body.get("image") or {}
    environment = payload.environment
    specified: dict[str, Any] = {
        "Image": image,
        "Hostname": settings.get("hostname") or container_name(payload),
        "Cmd": _COMMAND,
        "Labels": {
            **labels(payload, "build"),
            **{key: expand(value, environment) for key, value in settings.get("container_labels", {}).items()},
        },
        "Env": [f"{key}={value}" for key, value in environment.items()],
        "User": settings.get("user", ""),
        "Tty": False,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": True,
        "StdinOnce": True,
    }
    if wanted.get("entrypoint") and not settings.get("disable_entrypoint_overwrite"):
        specified["Entrypoint"] = wanted["entrypoint"]
    try:
        specified["HostConfig"] = _host_config(settings, volumes, hosts)
    except ValueError as error:
        raise SystemFailure(str(error)) from error
    return specified


def container_name(payload: Payload) -> str:
    """runner-<short token>-project-<id>-concurrent-<n>, as a host name may be written."""
    name = f"runner-{payload.entry.short_token}-project-{payload.project_id}-concurrent-{payload.slot}"
    return re.sub(r"[^a-z0-9-]", "", name.lower()).strip("-")


def _host_config(settings: Mapping[str, Any], volumes: list[str], hosts: list[str]) -> dict[str, Any]:
    sizes = {
        api: devices.size_bytes(settings[key])
        for key, api in (
            ("memory", "Memory"),
            ("memory_swap", "MemorySwap"),
            ("memory_reservation", "MemoryReservation"),
        )
        if settings.get(key)
    }
    return {
        **sizes,
        "Binds": volumes,
        "NanoCpus": round(float(settings.get("cpus") or 0) * 1e9),
        "CpusetCpus": settings.get("cpuset_cpus", ""),
        "CpuShares": settings.get("cpu_shares", 0),
        "CgroupParent": settings.get("cgroup_parent", ""),
        "Devices": [devices.device_mapping(device) for device in settings.get("devices", [])],
        "DeviceRequests": devices.device_requests(settings.get("gpus", "")),
        "DeviceCgroupRules": settings.get("device_cgroup_rules", []),
        "OomKillDisable": settings.get("oom_kill_disable", False),
        "OomScoreAdj": settings.get("oom_score_adjust", 0),
        "Ulimits": [_ulimit(name, value) for name, value in settings.get("ulimit", {}).items()],
        "Dns": settings.get("dns", []),
        "Runtime": settings.get("runtime", ""),
        "Privileged": settings.get("privileged", False),
        "GroupAdd": settings.get("group_add", []),
        "UsernsMode": settings.get("userns_mode", ""),
        "CapAdd": settings.get("cap_add", []),
        "CapDrop": settings.get("cap_drop", []),
        "SecurityOpt": settings.get("security_opt", []),
        "ExtraHosts": [*settings.get("extra_hosts", []), *hosts],
        "NetworkMode": settings.get("network_mode") or "default",
        "PidMode": settings.get("pid_mode", ""),
        "IpcMode": settings.get("ipcmode", ""),
        "ShmSize": settings.get("shm_size", 0),
        "Tmpfs": settings.get("tmpfs", {}),
        "Sysctls": settings.get("sysctls", {}),
    }


def _ulimit(name: str, value: str) -> dict[str, Any]:
    soft, _, hard = value.partition(":")
    return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
