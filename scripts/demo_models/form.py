"""Faults of form: what anybody sees who knows GitLab CI, without knowing what was asked for."""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Callable, Hashable, Sequence

from demo_models.corruptions import WRONG_KEYS
from demo_models.tasks import Task

Fault = Callable[[str, random.Random], str | None]


def spoil(task: Task, rng: random.Random) -> tuple[str, str]:
    """The right answer with one fault of form, and the fault's name."""
    while True:
        name = rng.choice(tuple(FAULTS))
        answer = FAULTS[name](task.reference, rng)
        if answer is not None and answer.strip() != task.reference.strip():
            return answer.strip(), name


def spoil_often(text: str, rng: random.Random, faults: int) -> str:
    """`text` with up to `faults` faults of form, one laid over the other; fewer where one finds no place."""
    for name in rng.choices(tuple(FAULTS), k=faults):
        spoilt = FAULTS[name](text, rng)
        # What is down to one line shows no form any more.
        if spoilt is not None and "\n" in spoilt.strip():
            text = spoilt.strip()
    return text


def fault_places(right: Sequence[Hashable], wrong: Sequence[Hashable]) -> tuple[int, ...]:
    """The places in `wrong` that are not in `right`; of what was left out, the place after it.

    Of what stands twice it is the second that is wrong: a reader who goes forward sees nothing in the first.
    """
    places: list[int] = []
    for kind, _, _, start, end in difflib.SequenceMatcher(None, right, wrong, autojunk=False).get_opcodes():
        if kind == "delete":
            places.append(min(start, len(wrong) - 1))
        elif kind != "equal":
            later = _slide(wrong, start, end) if kind == "insert" else 0
            places += range(start + later, end + later)
    # What was left out and what slid on may come to lie at one place.
    return tuple(sorted(set(places)))


def _slide(tokens: Sequence[Hashable], start: int, end: int) -> int:
    """How far the part from `start` to `end` can move on while what remains stays the same."""
    by = 0
    while end + by < len(tokens) and tokens[start + by] == tokens[end + by]:
        by += 1
    return by


def _lines(text: str) -> list[str]:
    return text.split("\n")


def _indentation(text: str, rng: random.Random) -> str | None:
    lines = _lines(text)
    indented = [index for index, line in enumerate(lines) if line.startswith("  ")]
    if not indented:
        return None
    at = rng.choice(indented)
    lines[at] = rng.choice((f"  {lines[at]}", lines[at][2:], f" {lines[at]}", f"\t{lines[at].lstrip()}"))
    return "\n".join(lines)


def _keyword(text: str, rng: random.Random) -> str | None:
    """A key of another CI system, or a misspelt one."""
    keys = [key for key in WRONG_KEYS if re.search(rf"^ +{key}:", text, re.MULTILINE)]
    if not keys:
        return None
    key = rng.choice(keys)
    return re.sub(rf"^( +){key}:", rf"\g<1>{rng.choice(WRONG_KEYS[key])}:", text, count=1, flags=re.MULTILINE)


def _no_script(text: str, rng: random.Random) -> str:
    """A job without its commands, or commands without their key."""
    if rng.random() < 0.5:
        return re.sub(r"^  script:\n(?:    .*\n?)+", "", text, count=1, flags=re.MULTILINE)
    return re.sub(r"^  script:\n", "", text, count=1, flags=re.MULTILINE)


def _no_name(text: str, rng: random.Random) -> str:
    """The keys of a job without its name."""
    _ = rng
    return "\n".join(_lines(text)[1:])


def _cut(text: str, rng: random.Random) -> str | None:
    """An end in the middle of a key."""
    places = [found.end() for found in re.finditer(r"^ +[a-z_]+(?=:)", text, re.MULTILINE)]
    return text[: rng.choice(places)] if places else None


def _no_colon(text: str, rng: random.Random) -> str | None:
    lines = _lines(text)
    keys = [index for index, line in enumerate(lines) if line.rstrip().endswith(":")]
    if not keys:
        return None
    at = rng.choice(keys)
    lines[at] = lines[at].rstrip().removesuffix(":")
    return "\n".join(lines)


def _no_dash(text: str, rng: random.Random) -> str | None:
    lines = _lines(text)
    items = [index for index, line in enumerate(lines) if line.lstrip().startswith("- ")]
    if not items:
        return None
    at = rng.choice(items)
    lines[at] = lines[at].replace("- ", "", 1)
    return "\n".join(lines)


def _prose(text: str, rng: random.Random) -> str:
    """Talk around the answer, or a Markdown fence."""
    before = rng.choice(("Here is the job:", "Sure! This is the GitLab CI job:", "```yaml", "```"))
    return f"{before}\n{text}\n```" if before.startswith("```") else f"{before}\n{text}"


def _other_system(text: str, rng: random.Random) -> str:
    """GitHub's way of writing the commands."""
    wrong = rng.choice(("  runs-on: ubuntu-latest\n  steps:\n", "  steps:\n"))
    body = re.sub(r"^  script:\n", wrong, text, count=1, flags=re.MULTILINE)
    return re.sub(r"^    - (?=\S)", "    - run: ", body, count=3, flags=re.MULTILINE)


def _twice(text: str, rng: random.Random) -> str:
    """A line that stands twice, as small models loop."""
    lines = _lines(text)
    at = rng.randrange(len(lines))
    return "\n".join([*lines[: at + 1], *[lines[at]] * rng.randrange(1, 4), *lines[at + 1 :]])


FAULTS: dict[str, Fault] = {
    "broken indentation": _indentation,
    "wrong keyword": _keyword,
    "no script": _no_script,
    "no name": _no_name,
    "cut off": _cut,
    "missing colon": _no_colon,
    "missing dash": _no_dash,
    "talk around it": _prose,
    "another system": _other_system,
    "a line repeated": _twice,
}
