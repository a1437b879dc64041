"""Write examples/rag/samples.jsonl from its questions and documents (`make docs`); a test holds them together."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

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
    document = FOLDER / "samples.jsonl"
    new = samples_text()
    if not document.exists() or document.read_text(encoding="utf-8") != new:
        document.write_text(new, encoding="utf-8")
        print(f"wrote {document.name}")


if __name__ == "__main__":
    main()
