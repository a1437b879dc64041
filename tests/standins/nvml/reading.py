"""A program for tests: reads the GPUs under one NVML state after the other, over the fake library.

Argument: the driving file. Standard input: a JSON list of steps, each with

- "text": the file's text from now on, null for a driver that is gone; absent leaves it;
- "root": detect the GPUs below this folder, and begin with a new source;
- "advance_s": let so much time pass, on the source's own clock;
- "reorder": ask for the GPUs in the other order;

Standard output: a JSON list of {"figures": by UUID, "error": why the source failed, "driver": its versions}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpurig.common.files import write_atomic
from gpurig.provisioning.detect import detect
from gpurig.provisioning.facts import Gpu
from gpurig.runner.exporter.devices.figures import SourceError
from gpurig.runner.exporter.devices.nvidia import NvidiaSource


class Program:
    """A source on a clock of its own."""

    def __init__(self, state: Path) -> None:
        """Take the driving file."""
        self._state = state
        self._at = 1000.0
        self._gpus: Sequence[Gpu] = ()
        self._source = NvidiaSource()

    def step(self, step: dict[str, Any]) -> dict[str, Any]:
        """Change what is to be changed, and read."""
        if "text" in step and step["text"] is None:
            self._state.unlink()
        elif "text" in step:
            write_atomic(self._state, step["text"].encode())
        if "root" in step:
            self._source.close()
            self._gpus = detect(root=Path(step["root"])).gpus
            self._source = NvidiaSource(monotonic=lambda: self._at)
        self._at += step.get("advance_s", 0)
        try:
            figures = self._source.read(self._gpus[::-1] if step.get("reorder") else self._gpus)
        except SourceError as error:
            return {"figures": {}, "error": str(error), "driver": None}
        driver = self._source.driver
        return {
            "figures": {uuid: asdict(one) for uuid, one in figures.items()},
            "error": "",
            "driver": asdict(driver) if driver else None,
        }


def main() -> None:
    """Run it."""
    program = Program(Path(sys.argv[1]))
    json.dump([program.step(step) for step in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
