"""The containers of the metrics: the watcher, which may ask the engine, and the exporter, which answers the network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpurig.provisioning.container_spec import NO_NEW_PRIVILEGES, ContainerSpec, Mount, Port
from gpurig.provisioning.engine_facts import EngineFacts
from gpurig.provisioning.listen import is_loopback, split_listen
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.settings import Settings
from gpurig.provisioning.wiring import Wiring, join

# Where the containers see the host's files.
EXPORTER_PORT = 9476
METRICS_WEB_DIR = "/etc/gpurig-metrics"
WEB_CONFIG_NAME = "web.yml"
BOX_DIR = "/run/gpurig/box"
BOX_FACTS = f"{BOX_DIR}/facts.json"
ACCOUNTS_DIR = "/run/gpurig/accounts"
USAGE_DIR = "/run/gpurig/usage"
# The watcher sees the instance's files below it, as they lie below the box's root.
WATCHED_ROOT = Path("/box")

# So long after the engine's last answer the watcher ends and is started anew: where the engine made its socket again,
# what is mounted is the old one.
_WATCHER_PATIENCE_S = 120


def watcher_spec(engine: EngineFacts, settings: Settings, paths: Paths, image: str) -> ContainerSpec:
    """What may use the engine and read the runners' files, and answers nobody."""
    seen = Paths(root=WATCHED_ROOT, name=paths.name)
    command = ["metrics", "watch", "--output", BOX_FACTS, "--root", str(WATCHED_ROOT), "--name", paths.name]
    # The root of a container lies on the file system of the engine's containers.
    command += ["--engine-dir", "/", "--give-up", str(_WATCHER_PATIENCE_S)]
    return ContainerSpec(
        name=f"{settings.name}-watcher",
        role="watcher",
        instance=settings.name,
        image=image,
        command=tuple(command),
        mounts=(
            Mount(str(paths.box_facts), BOX_DIR),
            Mount(engine.socket, "/var/run/docker.sock"),
            Mount(str(paths.config_dir), str(seen.config_dir), read_only=True),
            Mount(str(paths.models), str(seen.models), read_only=True),
        ),
        network="none",
        restart=True,
        read_only=True,
        cap_drop=("ALL",),
        # Where `up` is run by a member of the group docker, the files are that user's.
        cap_add=("DAC_OVERRIDE",),
        security_opt=NO_NEW_PRIVILEGES,
        user="0:0",
    )


def exporter_spec(
    wirings: Sequence[Wiring], settings: Settings, paths: Paths, image: str, *, hostname: str
) -> ContainerSpec:
    """What answers the network, and has neither the engine nor a token; `hostname` is the machine's."""
    address, port = split_listen(settings.metrics_listen)
    command = ["metrics", "serve", "--listen", f"0.0.0.0:{EXPORTER_PORT}", "--box-facts", BOX_FACTS]
    command += ["--state-dir", ACCOUNTS_DIR, "--usage-dir", USAGE_DIR]
    mounts = [
        Mount(str(paths.box_facts), BOX_DIR, read_only=True),
        Mount(str(paths.accounts), ACCOUNTS_DIR),
        Mount(str(paths.usage), USAGE_DIR),
    ]
    if settings.metrics_web_config is not None:
        command += ["--web-config", f"{METRICS_WEB_DIR}/{WEB_CONFIG_NAME}"]
        mounts.append(Mount(str(paths.metrics_web), METRICS_WEB_DIR, read_only=True))
    if settings.metrics_insecure or is_loopback(address):
        # Every address of the container is the published one's, and that is this machine's alone, or meant to be open.
        command.append("--insecure")
    if settings.metrics_dcgm_names:
        # The container has a name of its own.
        command += ["--dcgm-names", f"--hostname={hostname}"]
    return ContainerSpec(
        name=f"{settings.name}-exporter",
        role="exporter",
        instance=settings.name,
        image=image,
        command=tuple(command),
        mounts=tuple(mounts),
        ports=(Port(EXPORTER_PORT, address, port),),
        restart=True,
        read_only=True,
        tmpfs=("/tmp",),  # noqa: S108 - inside the container
        cap_drop=("ALL",),
        security_opt=NO_NEW_PRIVILEGES,
        wiring=join(wirings),
        # Drivers tell which processes use a GPU by the machine's own numbers.
        host_pids=True,
    )
