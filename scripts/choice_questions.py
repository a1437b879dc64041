"""Write the data sets of examples/multiple-choice from questions.yaml (`make docs`); a test holds them together."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import yaml
from rewriting import write_if_changed

FOLDER = Path(__file__).parents[1] / "examples" / "multiple-choice"


def data_sets(folder: Path = FOLDER) -> dict[str, str]:
    """Each file's name and text: samples.jsonl for the suite, questions.jsonl for `gpurig-job score`.

    The right choice stands first in questions.yaml; a hash of question and choice decides on the order here.
    """
    samples, scored = [], []
    for name, (question, *choices) in yaml.safe_load((folder / "questions.yaml").read_text(encoding="utf-8")).items():
        order = sorted(choices, key=lambda one, name=name: hashlib.sha256(f"{name}:{one}".encode()).digest())
        right = order.index(choices[0])
        listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCD", order, strict=True))
        samples.append({"id": name, "input": f"{question}\n{listed}", "reference": "ABCD"[right]})
        scored.append(
            {
                "id": name,
                "prompt": f"Question about GitLab CI: {question}\nAnswer:",
                "choices": [f" {choice}" for choice in order],
                "answer": right,
            }
        )
    return {
        name: "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        for name, lines in (("samples.jsonl", samples), ("questions.jsonl", scored))
    }


def main() -> None:
    """Write what differs."""
    for name, text in data_sets().items():
        write_if_changed(FOLDER / name, text)


if __name__ == "__main__":
    main()
