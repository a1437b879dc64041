"""The Docker Engine: connecting to it, asking what it can do, and its errors in our words."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurig.common.errors import ApplianceError, InputError, PrerequisiteError
from gpurig.provisioning.engine_facts import DEFAULT_ADDRESS, EngineFacts

if TYPE_CHECKING:
    import docker

# 20.10 (API 1.41) is the oldest engine that distributions still ship (Debian 11 and 12), and the oldest that
# gitlab-runner 19 is tested with here; the runner's `gpus` and cgroup v2 need 19.03 and 20.10.
OLDEST_VERSION = (20, 10)

_TIMEOUT_S = 60


class OutdatedError(PrerequisiteError):
    """The engine is older than what gitlab-runner works with.

    Attributes:
        version: the engine's own.
    """

    def __init__(self, version: str) -> None:
        """Word it."""
        self.version = version
        oldest = ".".join(str(number) for number in OLDEST_VERSION)
        super().__init__(
            f"Docker Engine {version or 'of unknown version'} is too old: {oldest} or newer is needed",
            hint="upgrade Docker Engine (docs.docker.com/engine/install)",
        )


def connect(address: str | None = None) -> docker.DockerClient:
    """A client of the engine at `address`, which has answered.

    Args:
        address: `unix:///path/of/the.sock`; the default socket where None.

    Raises:
        InputError: the address is not a Unix socket's. PrerequisiteError: no engine, no permission, not Docker, too
        old.
    """
    import docker  # noqa: PLC0415 - heavy

    where = address or DEFAULT_ADDRESS
    if not where.startswith("unix:///"):
        raise InputError(
            f"the engine must be on this machine, and {where.split('://', 1)[0]}:// is another place",
            hint="--docker-host unix:///var/run/docker.sock: GPUs and folders are given to containers by path",
        )
    _check_socket(Path(where.removeprefix("unix://")))
    with translated("asking the engine for its version"):
        client = docker.DockerClient(base_url=where, timeout=_TIMEOUT_S, version="auto")
        described = answer_of(client.version())
    check_version(described)
    return client


def _check_socket(path: Path) -> None:
    """Knock at the socket: docker-py's own words for these failures name its internals."""
    try:
        with socket.socket(socket.AF_UNIX) as knock:
            knock.settimeout(_TIMEOUT_S)
            knock.connect(str(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PrerequisiteError(
            f"no Docker Engine: there is no socket {path}",
            hint="install Docker Engine (docs.docker.com/engine/install), start it (systemctl start docker), "
            "or name its socket with --docker-host",
        ) from error
    except PermissionError as error:
        raise PrerequisiteError(
            f"no permission to use the Docker Engine's socket {path}",
            hint="run it with sudo, or join the docker group: sudo usermod -aG docker $USER, then log in again",
        ) from error
    except OSError as error:
        raise PrerequisiteError(
            f"the Docker Engine does not answer on {path} ({error.strerror or error})",
            hint="start it: systemctl start docker",
        ) from error


def check_version(described: dict[str, Any]) -> None:
    """Judge the engine's answer to `version`.

    Raises:
        PrerequisiteError: it is not Docker, or too old.
    """
    components = [str(part.get("Name", "")) for part in list_of(described.get("Components")) if isinstance(part, dict)]
    if any("podman" in name.lower() for name in components):
        raise PrerequisiteError(
            "the engine is Podman, and gitlab-runner does not see GPUs through it (gitlab-runner issue 39095)",
            hint="install Docker Engine and name its socket with --docker-host",
        )
    version = str(described.get("Version", ""))
    numbers = tuple(int(part) for part in version.split("-", maxsplit=1)[0].split(".")[:2] if part.isdigit())
    if numbers < OLDEST_VERSION:
        raise OutdatedError(version)


def engine_facts(client: docker.DockerClient, address: str | None = None) -> EngineFacts:
    """What the engine can do.

    Raises:
        PrerequisiteError: it does not answer.
    """
    with translated("asking the engine what it can do"):
        described, info = answer_of(client.version()), answer_of(client.info())
    # Engines from 25 on list the folders when CDI is on, and older ones do not know the key.
    folders = [Path(str(folder)) for folder in list_of(info.get("CDISpecDirs"))]
    return EngineFacts(
        address=address or DEFAULT_ADDRESS,
        version=str(described.get("Version", "")),
        api_version=str(described.get("ApiVersion", "")),
        cdi=bool(folders),
        cdi_devices=cdi_devices(folders),
        nvidia_runtime="nvidia" in answer_of(info.get("Runtimes") or {})
        or shutil.which("nvidia-container-runtime-hook") is not None,
        cgroup_driver=str(info.get("CgroupDriver", "")),
    )


def answer_of(document: object) -> dict[str, Any]:
    """A JSON object that the engine answered.

    Raises:
        PrerequisiteError: it is something else, so that this is no Docker Engine.
    """
    if not isinstance(document, dict):
        raise PrerequisiteError(
            "what listens on the engine's socket does not answer as a Docker Engine does",
            hint="check that it runs: docker version; or name another socket with --docker-host",
        )
    return document


def list_of(value: object) -> list[Any]:
    """A list in the engine's answer; an empty one where there is none."""
    return value if isinstance(value, list) else []


def cdi_devices(folders: list[Path]) -> tuple[str, ...]:
    """The device names that CDI specs in `folders` define, sorted; a spec that cannot be read defines none.

    The format is the Container Device Interface's: `kind`, and `devices` with a `name` each.
    """
    names = set()
    for folder in folders:
        for path in sorted(folder.glob("*")):
            spec = _cdi_spec(path)
            for device in spec.get("devices") or []:
                if isinstance(device, dict) and "name" in device:
                    names.add(f"{spec.get('kind', '')}={device['name']}")
    return tuple(sorted(names))


def _cdi_spec(path: Path) -> dict[str, Any]:
    import yaml  # noqa: PLC0415

    if path.suffix not in {".json", ".yaml", ".yml"}:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        spec = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        # The engine ignores such a spec too, so its devices do not exist.
        return {}
    return spec if isinstance(spec, dict) else {}


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what docker-py and requests raise while `doing` something into a PrerequisiteError.

    Args:
        doing: a phrase for the message, for example "creating the container gpurig-runner".
    """
    import docker.errors  # noqa: PLC0415
    import requests  # noqa: PLC0415

    try:
        yield
    except docker.errors.APIError as error:
        raise _from_engine(error, doing) from error
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        raise _from_connection(error, doing) from error


def _from_engine(error: Any, doing: str) -> ApplianceError:
    reason = " ".join(str(error.explanation or error).split())
    hint = "look at the engine's log: journalctl -u docker"
    lowered = reason.lower()
    if "address already in use" in lowered or "port is already allocated" in lowered:
        hint = "choose another address with --metrics-listen, or stop what listens there"
    elif "could not select device driver" in lowered:
        hint = "install nvidia-container-toolkit, then: nvidia-ctk runtime configure --runtime=docker"
    elif "no such image" in lowered or "pull access denied" in lowered or "manifest unknown" in lowered:
        hint = "check the image's name, and that this machine reaches its registry"
    elif any(sign in lowered for sign in ("no such host", "dial tcp", "tls handshake", "x509", "client.timeout")):
        hint = "the engine cannot reach that registry: check the image's name, the engine's proxy or mirror, or load it"
    elif "no space left" in lowered:
        hint = "free some disk space: docker system df shows what the engine holds"
    return PrerequisiteError(f"{doing}: the engine says: {reason[:300]}", hint=hint)


def _from_connection(error: BaseException, doing: str) -> ApplianceError:
    return PrerequisiteError(
        f"{doing}: the Docker Engine failed: {' '.join(str(error).split())[:200]}",
        hint="check that it runs: docker version; its log: journalctl -u docker",
    )
