"""A job's services: containers beside its own, as gitlab-runner starts them [executors/docker/services.go]."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import docker
from docker.errors import NotFound

from standins.runner import container as containers
from standins.runner import devices
from standins.runner.payload import Payload, expand

_WAIT_S = 30
_NAME = re.compile(r"(?P<host>[^/:]*)(?::\d+)?(?P<path>/[^:@]+)?(?::(?P<tag>[^/@]+))?(?P<digest>@.+)?")


@contextlib.contextmanager
def running(
    engine: docker.DockerClient, payload: Payload, volumes: list[str], say: Callable[[str], None]
) -> Iterator[list[str]]:
    """Start the job's services and wait for their ports; yields how the job's container finds them, as extra hosts.

    Raises:
        SystemFailure: one is not allowed, or its image is not to be had.
    """
    started: list[Any] = []
    hosts: list[str] = []
    try:
        for number, wanted in enumerate(payload.body.get("services") or []):
            name = expand(wanted["name"], payload.environment)
            _demand_allowed(payload, name)
            containers.provide(engine, payload, name, wanted.get("pull_policy") or ())
            service, version = _split(name)
            say(f"Starting service {service}:{version}...")
            specification = _specification(payload, wanted, name, volumes)
            own_name = f"{containers.container_name(payload)}-{payload.id:08x}-{service.replace('/', '__')}-{number}"
            api: Any = engine.api
            created = api.create_container_from_config(specification, own_name)
            container = engine.containers.get(created["Id"])
            started.append(container)
            container.start()
            hosts += [f"{alias}:{_address(container)}" for alias in _aliases(service, wanted)]
        _wait(payload, started, say)
        yield hosts
    finally:
        for container in started:
            with contextlib.suppress(NotFound):
                container.remove(force=True, v=True)


def _demand_allowed(payload: Payload, name: str) -> None:
    allowed = payload.entry.docker.get("allowed_services") or []
    if allowed and not any(devices.matches(pattern, name) for pattern in allowed):
        raise containers.SystemFailure(
            f"disallowed image: {name} is not in allowed_services", "runner_configuration_error"
        )


def _split(name: str) -> tuple[str, str]:
    """ "registry:5000/a/b:2" is the service "registry/a/b" of version "2" [helpers/container/services/services.go]."""
    found = _NAME.fullmatch(name)
    if found is None:
        return name, "latest"
    return f"{found['host']}{found['path'] or ''}", found["tag"] or "latest"


def _aliases(service: str, wanted: Mapping[str, Any]) -> list[str]:
    own = re.split(r"[, ]+", wanted.get("alias") or "")
    return list(dict.fromkeys([service.replace("/", "__"), service.replace("/", "-"), *filter(None, own)]))


def _specification(payload: Payload, wanted: Mapping[str, Any], name: str, volumes: list[str]) -> dict[str, Any]:
    settings, environment = payload.entry.docker, payload.environment
    service, version = _split(name)
    own = {item["key"]: expand(str(item["value"]), environment) for item in wanted.get("variables") or []}
    told = {key: expand(value, environment) for key, value in settings.get("container_labels", {}).items()}
    options = (wanted.get("executor_opts") or {}).get("docker") or {}
    specified = {
        "Image": name,
        "Labels": {
            **containers.labels(payload, "service"),
            f"{containers.LABEL}.service": service,
            f"{containers.LABEL}.service.version": version,
            **{f"{containers.LABEL}.{key}": value for key, value in told.items()},
            **told,
        },
        "Env": [f"{key}={value}" for key, value in {**payload.public_environment, **own}.items()],
        "User": str(options.get("user") or ""),
        # Neither groups nor capabilities: gitlab-runner has no setting that takes or gives them to a service.
        "HostConfig": {
            "Binds": volumes,
            "Devices": [
                devices.device_mapping(device)
                for pattern, paths in settings.get("services_devices", {}).items()
                if devices.matches(pattern, name)
                for device in paths
            ],
            "DeviceRequests": devices.device_requests(settings.get("service_gpus", "")),
            "Privileged": settings.get("privileged", False) and settings.get("services_privileged", True),
            "SecurityOpt": settings.get("services_security_opt", []),
            "Runtime": settings.get("runtime", ""),
            "UsernsMode": settings.get("userns_mode", ""),
            "NetworkMode": settings.get("network_mode") or "default",
            "ExtraHosts": settings.get("extra_hosts", []),
            "ShmSize": settings.get("shm_size", 0),
        },
    }
    if wanted.get("command"):
        specified["Cmd"] = wanted["command"]
    if wanted.get("entrypoint") and not settings.get("disable_entrypoint_overwrite"):
        specified["Entrypoint"] = wanted["entrypoint"]
    return specified


def _address(container: Any) -> str:
    container.reload()
    networks = container.attrs["NetworkSettings"]["Networks"].values()
    return next((network["IPAddress"] for network in networks if network["IPAddress"]), "127.0.0.1")


def _ports(container: Any) -> list[int]:
    config = container.attrs["Config"]
    environment = dict(pair.partition("=")[::2] for pair in config["Env"])
    if port := environment.get("HEALTHCHECK_TCP_PORT"):
        return [int(port)]
    return sorted(int(port.partition("/")[0]) for port in config.get("ExposedPorts") or {} if port.endswith("/tcp"))


def _wait(payload: Payload, started: list[Any], say: Callable[[str], None]) -> None:
    """Until every port takes a connection; a service that is late is told with what it wrote, and nothing more."""
    limit_s = payload.entry.docker.get("wait_for_services_timeout") or _WAIT_S
    if limit_s < 0 or not started:
        return
    say(f"Waiting for services to be up and running (timeout {limit_s} seconds)...")
    end = time.monotonic() + limit_s
    for container in started:
        address = _address(container)
        for port in _ports(container) or [0]:
            if port and _opens(container, address, port, end):
                continue
            say(f"*** WARNING: Service {container.name} probably didn't start properly.")
            say("Service container logs:")
            say(container.logs().decode(errors="replace").strip())


def _opens(container: Any, address: str, port: int, end: float) -> bool:
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
            return True
        container.reload()
        if container.status == "exited":
            return False
        time.sleep(0.2)
    return False
