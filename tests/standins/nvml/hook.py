"""In the place of nvidia-container-runtime-hook: gives a container the fake cards that NVIDIA_VISIBLE_DEVICES names.

`dockerd` looks for a program of that name on its PATH when it starts, and `--gpus device=<uuid>` then makes it a
prestart hook with that variable in the container's environment (moby, daemon/nvidia_linux.go). The container's state
comes on standard input, as the OCI runtime specification says; its mounts are there, and its root is not yet entered.

Arguments: the box's file (`write_hook`), then "prestart".
"""

from __future__ import annotations

import json
import shlex
import subprocess  # noqa: TID251 - runs where gpurig is not installed: on dockerd's PATH
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = json.loads(Path(sys.argv[1]).read_text())["path"]

from standins.nvml.library import DEFAULT_STATE, IN_CONTAINER, only, state_text, visible_parts

NAME = "nvidia-container-runtime-hook"
_VARIABLE = "NVIDIA_VISIBLE_DEVICES"


def write_hook(folder: Path, library: Path, nvml: Mapping[str, Any]) -> Path:
    """Make `folder` what a dockerd's PATH needs first, for a box with that NVML."""
    folder.mkdir(parents=True, exist_ok=True)
    box = folder / "box.json"
    box.write_text(json.dumps({"path": sys.path, "library": str(library), "nvml": nvml}))
    program = folder / NAME
    program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, __file__, str(box)])} "$@"\n')
    program.chmod(0o755)
    return folder


def wanted(value: str, nvml: Mapping[str, Any]) -> list[str]:
    """The UUIDs that a value of NVIDIA_VISIBLE_DEVICES means.

    Raises:
        KeyError: a device that is not there.
    """
    if value in {"", "void", "none"}:
        return []
    known = list(visible_parts(nvml))
    if value == "all":
        return known
    for uuid in value.split(","):
        if uuid not in known:
            raise KeyError(uuid)
    return value.split(",")


def main() -> int:
    """Give the container its cards; an exit code other than 0 keeps it from starting."""
    box = json.loads(Path(sys.argv[1]).read_text())
    state = json.load(sys.stdin)
    config = json.loads((Path(state["bundle"]) / "config.json").read_text())
    environment = dict(one.partition("=")[::2] for one in config["process"]["env"])
    try:
        uuids = wanted(environment.get(_VARIABLE, ""), box["nvml"])
    except KeyError as error:
        sys.stderr.write(f"nvidia-container-cli: device error: {error}: unknown device\n")
        return 1
    if uuids:
        _give(Path(config["root"]["path"]), state["pid"], box, uuids)
    return 0


def _give(root: Path, pid: int, box: Mapping[str, Any], uuids: list[str]) -> None:
    """Put the library, its driving file and the device files below `root`, in the mount namespace of `pid`."""
    nvml = only(box["nvml"], uuids)
    numbers = [index for index, card in enumerate(box["nvml"]["gpu"]) if card["uuid"] in _cards(nvml)]
    commands = [
        f"cat > {shlex.quote(str(root) + DEFAULT_STATE)}",
        f"cp {shlex.quote(box['library'])} {shlex.quote(str(root) + IN_CONTAINER)}",
        # The null device stands for the card's own, which no machine without a card can open.
        *(f"mknod -m 666 {shlex.quote(str(root))}/dev/nvidia{number} c 1 3" for number in numbers),
    ]
    subprocess.run(
        ["/usr/bin/nsenter", "--target", str(pid), "--mount", "--", "/bin/sh", "-ec", "\n".join(commands)],
        input=state_text(nvml).encode(),
        check=True,
    )


def _cards(nvml: Mapping[str, Any]) -> set[str]:
    return {card["uuid"] for card in nvml["gpu"]}


if __name__ == "__main__":
    sys.exit(main())
