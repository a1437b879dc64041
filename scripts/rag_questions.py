"""Write examples/rag/samples.jsonl from its questions and documents (`make docs`); a test holds them together."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from rewriting import write_if_changed

FOLDER = Path(__file__).parents[1] / "examples" / "rag"


def samples_text(folder: Path = FOLDER) -> str:
    """The data set: a line for each question, with the text of the document that answers it."""
    lines = []
    for name, about in yaml.safe_load((folder / "questions.yaml").read_text(encoding="utf-8")).items():
        text = (folder / "documents" / about["document"]).read_text(encoding="utf-8")
        sample = {
            "id": name,
            "input": about["question"],
            "vars": {"relevant": about["document"], "document": text},
            "checks": [{"regex": {"pattern": about["answer"], "ignore_case": True}}],
        }
        lines.append(json.dumps(sample, ensure_ascii=False) + "\n")
    return "".join(lines)


def main() -> None:
    """Write it where it differs."""
    write_if_changed(FOLDER / "samples.jsonl", samples_text())


if __name__ == "__main__":
    main()
