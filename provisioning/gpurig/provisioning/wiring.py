"""Which devices a container gets: decided here once, rendered for config.toml and for the Docker SDK alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Wiring:
    """The device settings of a container.

    Attributes:
        gpus: the runner's `gpus` setting, in the syntax of Docker's `--gpus`; "" for none.
        devices: paths for `devices`; never CDI names, because the runner appends `:rwm`
            (gitlab-org/gitlab-runner issue 37365).
        group_add: numeric gids.
    """

    gpus: str = ""
    devices: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()

    def config_keys(self) -> dict[str, Any]:
        """The keys of `[runners.docker]`; only those that are set."""
        keys: dict[str, Any] = {}
        if self.gpus:
            keys["gpus"] = self.gpus
        if self.devices:
            keys["devices"] = list(self.devices)
        if self.group_add:
            keys["group_add"] = list(self.group_add)
        return keys
