"""What must be true before anything is made, each failure with its fix."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

from gpurig.common.errors import ApplianceError, InputError, PrerequisiteError
from gpurig.common.files import read_bytes, read_problem
from gpurig.provisioning.container_spec import ContainerSpec
from gpurig.provisioning.containers import Engine
from gpurig.provisioning.disk import Disk
from gpurig.provisioning.facts import HostFacts
from gpurig.provisioning.listen import split_listen
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.service_spec import ServiceSpec, render_unit, unit_owner
from gpurig.provisioning.settings import Settings


def check_hardware(host: HostFacts, settings: Settings) -> None:
    """A GPU that is there and cannot be used is a fault, never a CPU box.

    Raises:
        PrerequisiteError: detection says so, and the user did not ask for a CPU runner.
    """
    broken = next((problem for problem in host.problems if problem.unusable), None)
    if broken is not None and not settings.cpu:
        raise PrerequisiteError(
            broken.message, hint=f"{broken.hint}; or --cpu for a CPU runner" if broken.hint else "--cpu: a CPU runner"
        )


def check_folders(paths: Paths) -> None:
    """The folders can be made, or written to where they are; nothing is made to find out.

    Raises:
        PrerequisiteError: one cannot.
    """
    for folder in (paths.config_dir, paths.data_dir):
        existing = next(parent for parent in (folder, *folder.parents) if _exists(parent))
        hint = "run it with sudo, or choose another place with --root DIR"
        if not existing.is_dir():
            raise PrerequisiteError(f"cannot make {folder}: {existing} is not a folder", hint=hint)
        try:
            read_only = bool(os.statvfs(existing).f_flag & os.ST_RDONLY)
        except OSError:
            read_only = False
        if read_only:
            raise PrerequisiteError(
                f"{existing} is on a read-only file system", hint="choose another place: --root DIR"
            )
        if not os.access(existing, os.W_OK | os.X_OK):
            raise PrerequisiteError(f"no permission to write to {existing}", hint=hint)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def check_ca_file(settings: Settings) -> None:
    """The certificate authority's file holds certificates.

    Raises:
        InputError: it is not there, or is no PEM. PrerequisiteError: it may not be read.
    """
    if settings.tls_ca_file is not None:
        check_certificates(settings.tls_ca_file)


def check_certificates(path: Path) -> None:
    """The same for one file.

    Raises:
        InputError: it is not there, or is no PEM. PrerequisiteError: it may not be read.
    """
    read_bytes(path)
    try:
        ssl.create_default_context(cafile=str(path))
    except ssl.SSLError as error:
        raise InputError(
            f"{path} holds no certificate that can be read", hint="--tls-ca-file takes a PEM file"
        ) from error


def check_archives(archives: Sequence[Path]) -> None:
    """The files with images can be read.

    Raises:
        InputError: one is not there. PrerequisiteError: one may not be read.
    """
    for archive in archives:
        try:
            archive.open("rb").close()
        except OSError as error:
            raise read_problem(archive, error) from error


def check_names(engine: Engine, containers: Sequence[ContainerSpec]) -> None:
    """No stranger's container has a name that gpurig needs.

    Raises:
        PrerequisiteError: one has.
    """
    for spec in containers:
        owner = engine.owner_of(spec.name)
        if owner is not None and owner != spec.instance:
            raise PrerequisiteError(
                f"a container named {spec.name} exists, and it is not gpurig's",
                hint=f"choose another name with --name, or remove it: docker rm -f {spec.name}",
            )


def check_unit(disk: Disk, spec: ServiceSpec) -> None:
    """No stranger's unit has the name that the runner's needs; and the unit can be written.

    Raises:
        PrerequisiteError: one has. InputError: a path cannot stand in a unit file.
    """
    render_unit(spec)
    text = disk.read(spec.path)
    if text is None or unit_owner(text) == (spec.instance, str(spec.root)):
        return
    owner = unit_owner(text)
    whose = "not gpurig's" if owner is None else f"that of the instance below {owner[1]}"
    raise PrerequisiteError(
        f"{spec.path} exists, and it is {whose}",
        hint="choose another name with --name, or remove it: systemctl disable --now " + spec.unit,
    )


def check_port(settings: Settings, *, ours: bool) -> None:
    """The exporter's port is free.

    Args:
        settings: `metrics_listen` says where.
        ours: an exporter of this instance listens already.

    Raises:
        PrerequisiteError: it is taken, or the address is not this machine's.
    """
    if settings.metrics_listen != "off" and not ours:
        check_listen(settings.metrics_listen)


def check_listen(listen: str) -> None:
    """A server could listen at `listen`, an address and a port.

    Raises:
        PrerequisiteError: the port is taken. InputError: the address is not this machine's.
    """
    address, port = split_listen(listen)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As a server does it: a connection that was closed a moment ago does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise _port_problem(listen, port, error) from error


def _port_problem(listen: str, port: int, error: OSError) -> ApplianceError:
    if error.errno == errno.EADDRINUSE:
        return PrerequisiteError(
            f"port {port} is in use: the metrics exporter cannot listen on {listen}",
            hint=f"--metrics-listen with another port, or off; who has it: ss -ltnp sport = :{port}",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return InputError(f"{listen} is not an address of this machine", hint="ip address shows those it has")
    return PrerequisiteError(
        f"the metrics exporter cannot listen on {listen}: {error.strerror}", hint="choose another: --metrics-listen"
    )
