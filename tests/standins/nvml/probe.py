"""A program for tests: detects under one NVML state after the other, in a process that has loaded the fake library.

Arguments: the driving file and a root directory. Standard input: a JSON list of the file's texts. Standard output: a
JSON list of {"document": what `gpurig detect --json` would print, "seconds": how long detection took}.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from gpurig.common.files import write_atomic
from gpurig.provisioning.detect import detect
from gpurig.runner.commands.detect import as_document


def main() -> None:
    """Run it."""
    state, root = Path(sys.argv[1]), Path(sys.argv[2])
    answers = []
    for text in json.load(sys.stdin):
        write_atomic(state, text.encode(errors="surrogateescape"))
        began = time.perf_counter()
        facts = detect(root=root)
        answers.append({"seconds": time.perf_counter() - began, "document": as_document(facts)})
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
