"""The exporter's web configuration on its way from the user's files into the exporter's container."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from gpurig.common.files import read_text
from gpurig.provisioning.listen import split_listen
from gpurig.provisioning.metrics_containers import WEB_CONFIG_NAME
from gpurig.provisioning.settings import Settings
from gpurig.runner.exporter.web.web_config import CLIENT_AUTH, VERSIONS, WebConfig, check_exposure, load_web_config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gpurig.provisioning.paths import Paths
    from gpurig.runner.up_run import UpRun

_CERTIFICATE, _KEY, _CLIENTS = "server.crt", "server.key", "clients.crt"


def check_metrics(settings: Settings) -> None:
    """The web configuration is right, and it is there where other machines can read the metrics.

    Raises:
        InputError, PrerequisiteError: see check_exposure.
    """
    if settings.metrics_listen == "off":
        return
    check_exposure(
        split_listen(settings.metrics_listen)[0],
        settings.metrics_web_config,
        insecure=settings.metrics_insecure,
        options=("--metrics-listen", "--metrics-web-config", "--metrics-insecure"),
    )


def make_metrics_folders(run: UpRun) -> None:
    """The folders by which watcher, exporter and jobs tell one another; undone, what was written there goes, too."""
    if run.plan.usage is None:
        return
    paths, disk = run.paths, run.world.disk
    run.make_directory(paths.metrics_data.parent, mode=0o755)
    if disk.missing(paths.metrics_data):
        run.undo.push(f"removing {paths.metrics_data}", functools.partial(disk.remove, paths.metrics_data))
    for folder, mode in metrics_folders(paths):
        run.make_directory(folder, mode=mode)


def metrics_folders(paths: Paths) -> tuple[tuple[Path, int], ...]:
    """The folders by which watcher, exporter and jobs tell one another, with their modes, the outermost first.

    The exporter is a user of its own, whose number on the host depends on the engine. What it writes to may be written
    by everybody who gets there: on the host that is nobody but the owner of the folder around it, and of the containers
    the exporter's alone has it to write.
    """
    return (
        (paths.metrics_data, 0o700),
        (paths.box_facts, 0o755),
        (paths.accounts, 0o777),
        (paths.usage, 0o777),
    )


def write_web_files(run: UpRun) -> list[str]:
    """Copy the web configuration and the files that it names; the names of those that changed.

    The exporter reads changed files by itself. They are copies because the exporter's user may not read the owner's
    own, and because a mounted folder shows renewed files, which a mounted file does not.
    """
    source, folder = run.settings.metrics_web_config, run.paths.metrics_web
    if source is None or run.settings.metrics_listen == "off":
        return []
    run.make_directory(folder.parent, mode=0o700)
    run.make_directory(folder, mode=0o755)
    files = web_files(load_web_config(source))
    return [name for name, text in files.items() if run.write(folder / name, text, mode=0o644)]


def web_files(config: WebConfig) -> dict[str, str]:
    """A configuration as files of one folder, by name; web.yml comes last, when what it names is there."""
    import yaml  # noqa: PLC0415 - heavy

    files: dict[str, str] = {}
    document: dict[str, Any] = {}
    if config.tls is not None:
        files |= {_CERTIFICATE: read_text(config.tls.certificate), _KEY: read_text(config.tls.key)}
        document["tls_server_config"] = {
            "cert_file": _CERTIFICATE,
            "key_file": _KEY,
            "client_auth_type": _name(CLIENT_AUTH, config.tls.client_auth),
            "min_version": _name(VERSIONS, config.tls.minimum),
            "max_version": _name(VERSIONS, config.tls.maximum),
        }
        if config.tls.client_ca is not None:
            files[_CLIENTS] = read_text(config.tls.client_ca)
            document["tls_server_config"]["client_ca_file"] = _CLIENTS
    if config.headers:
        document["http_server_config"] = {"headers": dict(config.headers)}
    if config.users:
        document["basic_auth_users"] = dict(config.users)
    return {**files, WEB_CONFIG_NAME: yaml.safe_dump(document)}


def _name(names: Mapping[str, object], value: object) -> str:
    return next(name for name, one in names.items() if one == value)


def metrics_url(settings: Settings) -> str:
    """Where the metrics are; "" where they are off."""
    if settings.metrics_listen == "off":
        return ""
    secured = settings.metrics_web_config is not None and load_web_config(settings.metrics_web_config).tls is not None
    return f"http{'s' if secured else ''}://{settings.metrics_listen}/metrics"
