"""Write examples/translation/samples.jsonl from the pairs beside it (`make docs`); a test holds them together."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from rewriting import write_if_changed

FOLDER = Path(__file__).parents[1] / "examples" / "translation"


def samples_text(folder: Path = FOLDER) -> str:
    """The data set: a line for each pair of pairs.yaml, in its order.

    Raises OSError where a pair lacks one of its files.
    """
    lines = []
    for name, about in yaml.safe_load((folder / "pairs.yaml").read_text(encoding="utf-8")).items():
        sample = {
            "id": name,
            "input": (folder / "pairs" / f"{name}.github.yml").read_text(encoding="utf-8"),
            "reference": (folder / "pairs" / f"{name}.gitlab.yml").read_text(encoding="utf-8"),
            "tags": about["tags"],
            "checks": about["checks"],
        }
        lines.append(json.dumps(sample, ensure_ascii=False) + "\n")
    return "".join(lines)


def main() -> None:
    """Write it where it differs."""
    write_if_changed(FOLDER / "samples.jsonl", samples_text())


if __name__ == "__main__":
    main()
