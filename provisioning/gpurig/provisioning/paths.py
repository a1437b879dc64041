"""Where gpurig keeps things on a box."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """The folders and files of one instance.

    Attributes:
        root: the folder everything lies below; "/" by default.
        name: the instance's name; the default one has no folder of its own.
    """

    root: Path = Path("/")
    name: str = "gpurig"

    @property
    def config_dir(self) -> Path:
        """The runner container sees this folder as /etc/gitlab-runner."""
        return self.root / "etc" / self.name

    @property
    def config(self) -> Path:
        """The runner's config.toml."""
        return self.config_dir / "config.toml"

    @property
    def state(self) -> Path:
        """Runner ids and tokens, and the settings of the last `up`."""
        return self.config_dir / "state.json"

    @property
    def ca_file(self) -> Path:
        """The copy of `--tls-ca-file` that the runner reads."""
        return self.config_dir / "certs" / "gitlab-ca.crt"

    @property
    def metrics_web(self) -> Path:
        """The exporter's web configuration and its keys.

        The exporter's container sees this folder and reads it as a user of its own; on the host nobody but the owner
        gets past the folder around it.
        """
        return self.config_dir / "metrics" / "web"

    @property
    def system_id(self) -> Path:
        """What gitlab-runner writes when it has loaded its configuration."""
        return self.config_dir / ".runner_system_id"

    @property
    def data_dir(self) -> Path:
        """Models and caches."""
        return self.root / "var" / "lib" / self.name

    @property
    def metrics_data(self) -> Path:
        """What the watcher, the exporter and jobs tell one another.

        Only its owner gets into this folder on the host, and containers see the folders in it: these can be written by
        the users of the containers that are given them to write.
        """
        return self.data_dir / "metrics"

    @property
    def box_facts(self) -> Path:
        """The watcher writes there what the exporter may know of the engine and the box."""
        return self.metrics_data / "box"

    @property
    def accounts(self) -> Path:
        """The exporter's counters, which outlive it."""
        return self.metrics_data / "accounts"

    @property
    def usage(self) -> Path:
        """The exporter writes there what each job used; jobs see it read-only as /run/gpurig/usage."""
        return self.metrics_data / "usage"

    @property
    def models(self) -> Path:
        """GGUF files; jobs see them read-only as /models."""
        return self.data_dir / "models"


def box_id(machine_id: str, paths: Paths) -> str:
    """Eight hexadecimal digits that tell this instance on this box from every other.

    The machine id itself is confidential and leaves the box only hashed, as machine-id(5) asks.
    """
    return hashlib.sha256(f"gpurig:{machine_id.strip()}:{paths.root}:{paths.name}".encode()).hexdigest()[:8]
