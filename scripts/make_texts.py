"""Write the texts that models read when they are calibrated and compared (evaljobs/gpurig/evaljobs/assets/texts).

Everything in them was made by this project: its own documentation and sources, its examples of pipelines, arithmetic
and tables from a seed, and scripts/texts/prose.md, which was written for this. Cut into blocks and mixed; a block is in
one of the two texts, so a comparison is never made on what a model was calibrated with.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "evaljobs" / "gpurig" / "evaljobs" / "assets" / "texts"
_BLOCK = 900
# Every fourth block is for the comparison.
_SHARE = 4
_MODULES = ("common", "provisioning", "images", "evaljobs")
_MOST_CODE = 60_000


def blocks_of(text: str) -> list[str]:
    """Paragraphs put together to blocks of about 900 characters."""
    blocks = [""]
    for paragraph in re.split(r"\n{2,}", text.strip()):
        if len(blocks[-1]) > _BLOCK:
            blocks.append("")
        blocks[-1] += paragraph + "\n\n"
    return blocks


def sources() -> list[str]:
    """Blocks of prose, documentation, code, pipelines and generated data, each kind by itself."""
    chance = random.Random(20)
    found = blocks_of((ROOT / "scripts" / "texts" / "prose.md").read_text())
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        found += blocks_of(path.read_text())
    code = [
        block
        for one in _MODULES
        for path in sorted((ROOT / one).rglob("*.py"))
        for block in blocks_of(path.read_text())
    ]
    chance.shuffle(code)
    while sum(map(len, code)) > _MOST_CODE:
        code.pop()
    found += code
    records = (ROOT / "examples" / "ci-jobs" / "calibration.jsonl").read_text().splitlines()
    pairs = [json.loads(line) for line in records[:80]]
    found += [f"{one['input']}\n\n```yaml\n{one['output']}\n```\n\n" for one in pairs if one["verdict"] == "good"]
    found += [generated(chance, number) for number in range(40)]
    return found


def generated(chance: random.Random, number: int) -> str:
    """Arithmetic, a table, or a JSON record."""
    rows = [(chance.randrange(2, 99), chance.randrange(2, 99)) for _ in range(8)]
    if number % 3 == 0:
        return "\n".join(f"{a} + {b} = {a + b}; {a} * {b} = {a * b}; {a} - {b} = {a - b}" for a, b in rows) + "\n\n"
    if number % 3 == 1:
        lines = [f"| sample {index} | {a / 10:.1f} | {b}.{a:02d} % |" for index, (a, b) in enumerate(rows)]
        return "\n".join(["| name | seconds | share |", "|---|---|---|", *lines]) + "\n\n"
    record = {
        "id": chance.randrange(10**6),
        "tags": [f"vram-{a}gb" for a, _ in rows[:3]],
        "values": dict(map(_pair, rows)),
    }
    return json.dumps(record, indent=2) + "\n\n"


def _pair(row: tuple[int, int]) -> tuple[str, float]:
    return f"step_{row[0]}", row[1] / 7


def main() -> None:
    """Write both texts."""
    blocks = list(dict.fromkeys(sources()))
    random.Random(7).shuffle(blocks)
    TARGET.mkdir(parents=True, exist_ok=True)
    comparison = blocks[::_SHARE]
    (TARGET / "comparison.txt").write_text("".join(comparison))
    (TARGET / "calibration.txt").write_text("".join(one for one in blocks if one not in set(comparison)))
    for path in sorted(TARGET.iterdir()):
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
