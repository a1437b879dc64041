"""The CDI specs for NVIDIA GPUs: there, of the loaded driver, and naming every GPU."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpurig.common.errors import PrerequisiteError
from gpurig.provisioning.distribution import Command
from gpurig.provisioning.doctor.finding import Finding
from gpurig.provisioning.engine_facts import EngineFacts
from gpurig.provisioning.facts import Gpu
from gpurig.provisioning.versions import older
from gpurig.provisioning.wiring import NVIDIA_CDI, wire

DEFAULT_FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))
DEFAULT_SPEC = Path("/etc/cdi/nvidia.yaml")

# Engines know CDI from 25 on; 26.1 has it off and 28.5 on unless somebody says otherwise (tried).
_FIRST_WITH_CDI = (25,)
_SUFFIXES = {".json", ".yaml", ".yml"}
# Libraries of the driver carry its version, and so does the hook for CUDA compatibility.
_LIBRARY = re.compile(r"/lib(?:cuda|nvidia-ml|nvidia-ptxjitcompiler)\.so\.(\d+\.\d+(?:\.\d+)?)$")
_HOOK = re.compile(r"^--host-driver-version=(\d+\.\d+(?:\.\d+)?)$")


@dataclass(frozen=True)
class SpecSeen:
    """One file in a CDI folder.

    Attributes:
        path: the file.
        kind: "nvidia.com/gpu"; "" where the file cannot be read.
        devices: the names it defines.
        drivers: the driver versions that its library paths and hooks name.
        missing: host paths that it hands to containers and that are not there.
        problem: why the engine passes over the file; "" where it does not.
    """

    path: Path
    kind: str = ""
    devices: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    problem: str = ""


def look(folders: Sequence[Path], *, root: Path = Path("/")) -> tuple[SpecSeen, ...]:
    """Read the specs in `folders`; the host paths that they name are looked for below `root`.

    Raises:
        OSError: a folder is there and cannot be listed.
    """
    specs = []
    for folder in folders:
        if not folder.is_dir():
            continue
        specs += [_read(path, root) for path in sorted(folder.iterdir()) if path.suffix in _SUFFIXES]
    return tuple(specs)


def _read(path: Path, root: Path) -> SpecSeen:
    import yaml  # noqa: PLC0415 - heavy

    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        return SpecSeen(path, problem=error.strerror or "it cannot be read")
    except (ValueError, yaml.YAMLError, RecursionError):
        return SpecSeen(path, problem=f"it is no {'JSON' if path.suffix == '.json' else 'YAML'}")
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        return SpecSeen(path, problem="it is no CDI spec")
    return read_spec(path, document, root)


def read_spec(path: Path, document: dict[str, Any], root: Path) -> SpecSeen:
    """What a spec says, and which of its host paths are missing below `root`.

    The format is the Container Device Interface's SPEC.md.
    """
    words = tuple(_strings(document))
    drivers = [found[1] for word in words for found in (_LIBRARY.search(word) or _HOOK.match(word),) if found]
    mounts = [mount for edits in _edits(document) for mount in _tables(edits.get("mounts"))]
    nodes = [node for edits in _edits(document) for node in _tables(edits.get("deviceNodes"))]
    wanted = [mount.get("hostPath") for mount in mounts]
    wanted += [node.get("hostPath") or node.get("path") for node in nodes]
    paths = dict.fromkeys(str(one) for one in wanted if isinstance(one, str) and one.startswith("/"))
    return SpecSeen(
        path=path,
        kind=str(document["kind"]),
        devices=tuple(str(device["name"]) for device in _tables(document.get("devices")) if "name" in device),
        drivers=tuple(dict.fromkeys(drivers)),
        missing=tuple(one for one in paths if not (root / one.lstrip("/")).exists()),
    )


def _tables(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _edits(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for part in (document, *_tables(document.get("devices"))):
        edits = part.get("containerEdits")
        if isinstance(edits, dict):
            yield edits


def _strings(value: Any) -> Iterator[str]:
    pending = [value]
    seen: set[int] = set()
    while pending:
        one = pending.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict | list) and id(one) not in seen:
            # YAML's aliases can make a document that contains itself.
            seen.add(id(one))
            pending += one.values() if isinstance(one, dict) else one


def judge(specs: Sequence[SpecSeen], gpus: Sequence[Gpu], engine: EngineFacts | None) -> tuple[Finding, ...]:
    """The finding on CDI.

    Args:
        specs: of all CDI folders.
        gpus: the NVIDIA GPUs that jobs are meant to get, with the version of the driver that is loaded.
        engine: None where it could not be asked: then the specs are judged alone.
    """
    if not gpus:
        return (Finding("cdi spec", "skipped", "no NVIDIA GPU"),)
    if engine is not None and not engine.cdi:
        return (_without_cdi(engine),)
    ours = [spec for spec in specs if spec.kind == NVIDIA_CDI]
    if not ours:
        return (_absent([spec for spec in specs if spec.problem], engine),)
    loaded = tuple(dict.fromkeys(gpu.driver for gpu in gpus if gpu.driver))
    wrong = (*(_stale(spec, loaded) for spec in ours), _twice(ours), _incomplete(ours[0], gpus, engine))
    first = next((finding for finding in wrong if finding is not None), None)
    if first is not None:
        return (first,)
    drivers = ", ".join(dict.fromkeys(driver for spec in ours for driver in spec.drivers))
    names = sum(len(spec.devices) for spec in ours)
    return (
        Finding(
            "cdi spec",
            "ok",
            f"{names} device names in {', '.join(str(spec.path) for spec in ours)}",
            found=drivers and f"driver {drivers}",
            needed=f"driver {loaded[0]}" if loaded and drivers else "",
        ),
    )


def _incomplete(spec: SpecSeen, gpus: Sequence[Gpu], engine: EngineFacts | None) -> Finding | None:
    if engine is None or _reaches_all(gpus, engine):
        return None
    return Finding(
        "cdi spec",
        "failed",
        "the CDI spec does not name every NVIDIA GPU: one was added since it was written",
        found=f"{len(spec.devices)} device names",
        needed=f"{len(gpus)} GPUs",
        commands=generate(spec.path),
    )


def _without_cdi(engine: EngineFacts) -> Finding:
    if older(engine.version, _FIRST_WITH_CDI):
        message = "this engine has no CDI; NVIDIA's runtime takes its place"
        return Finding("cdi spec", "skipped", message, hint="Docker Engine 28.5 and newer have it without settings")
    return Finding(
        "cdi spec",
        "warning",
        "CDI is turned off in the Docker Engine",
        found="off",
        needed="on",
        commands=(
            Command(("nvidia-ctk", "runtime", "configure", "--runtime=docker", "--cdi.enabled"), by_hand=True),
            Command(("systemctl", "restart", "docker"), by_hand=True),
        ),
        hint="the restart stops running containers",
    )


def _absent(damaged: Sequence[SpecSeen], engine: EngineFacts | None) -> Finding:
    if damaged:
        spec = damaged[0]
        return Finding(
            "cdi spec",
            "failed",
            f"{spec.path} is ignored: {spec.problem}",
            found="damaged",
            commands=generate(spec.path),
        )
    runtime = engine is not None and engine.nvidia_runtime
    return Finding(
        "cdi spec",
        "warning" if runtime else "failed",
        "no CDI spec names the NVIDIA GPUs" + ("; NVIDIA's runtime takes its place" if runtime else ""),
        found="none",
        needed=NVIDIA_CDI,
        commands=generate(DEFAULT_SPEC),
    )


def _stale(spec: SpecSeen, loaded: Sequence[str]) -> Finding | None:
    other = [driver for driver in spec.drivers if loaded and driver not in loaded]
    if other:
        return Finding(
            "cdi spec",
            "failed",
            f"{spec.path} was written for driver {other[0]}, and {loaded[0]} is loaded",
            found=f"driver {other[0]}",
            needed=f"driver {loaded[0]}",
            commands=generate(spec.path),
        )
    if spec.missing:
        more = f" and {len(spec.missing) - 1} more" if len(spec.missing) > 1 else ""
        return Finding(
            "cdi spec",
            "failed",
            f"{spec.path} names files that are gone: {spec.missing[0]}{more}",
            found=f"{len(spec.missing)} missing",
            needed="every file there",
            commands=generate(spec.path),
        )
    return None


def _twice(specs: Sequence[SpecSeen]) -> Finding | None:
    """Two specs of one folder with one device name: the engine then knows neither (CDI's cache drops conflicts)."""
    for folder in dict.fromkeys(spec.path.parent for spec in specs):
        here = [spec for spec in specs if spec.path.parent == folder]
        counted = Counter(name for spec in here for name in set(spec.devices))
        name = next((name for name, count in counted.items() if count > 1), None)
        if name is not None:
            paths = [str(spec.path) for spec in here if name in spec.devices]
            return Finding(
                "cdi spec",
                "failed",
                f"{' and '.join(paths)} both define {NVIDIA_CDI}={name}, so that it means nothing",
                found="defined twice",
                needed="once",
                commands=(Command(("rm", paths[-1]), by_hand=True),),
                hint="keep the one that NVIDIA's toolkit writes",
            )
    return None


def _reaches_all(gpus: Sequence[Gpu], engine: EngineFacts) -> bool:
    try:
        return all(wire([gpu], engine, beside=gpus).driver == "cdi" for gpu in gpus)
    except PrerequisiteError:
        return False


def generate(path: Path) -> tuple[Command, ...]:
    """The commands that write the spec anew."""
    return (Command(("mkdir", "-p", str(path.parent))), Command(("nvidia-ctk", "cdi", "generate", f"--output={path}")))
