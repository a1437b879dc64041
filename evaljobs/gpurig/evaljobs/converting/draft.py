"""A suite as a conversion makes it: what was carried over, and what was not, each with its line and reason."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gpurig.evaljobs.suites.source import is_text

_WIDTH = 120


@dataclass(frozen=True)
class Remark:
    """Something that was not carried over, or not as it was.

    Attributes:
        field: where in the file, "tests[0].assert[1]".
        reason: what a person should know.
        text: what stood there; it is kept as a comment.
        changed: it was carried over, but means something else.
    """

    path: Path
    line: int
    field: str
    reason: str
    text: str = ""
    changed: bool = False

    def __str__(self) -> str:
        """One line."""
        return f"{self.path}{self._rest}"

    @property
    def in_comment(self) -> str:
        """The same in the suite, which others read on other machines."""
        return f"{self.path.name}{self._rest}"

    @property
    def _rest(self) -> str:
        what = "changed" if self.changed else "not carried over"
        return f":{self.line}: {self.field}: {what}: {self.reason}"


@dataclass
class DraftSample:
    """A sample and what belongs to it."""

    data: dict[str, Any]
    remarks: list[Remark] = field(default_factory=list)
    description: str = ""


@dataclass
class Draft:
    """A suite to be written.

    Attributes:
        source: what it was made from.
        head: suite.yaml without its samples.
        files: other files, by their path in the folder.
    """

    source: Path
    head: dict[str, Any]
    samples: list[DraftSample] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)

    def all_remarks(self) -> list[Remark]:
        """Those of the suite and of its samples, in the order of the lines."""
        found = [*self.remarks, *(remark for sample in self.samples for remark in sample.remarks)]
        return sorted(set(found), key=lambda remark: (str(remark.path), remark.line, remark.field))

    def suite_text(self) -> str:
        """suite.yaml; what was not carried over stands in it as comments."""
        parts = [f"# Made from {comment_text(self.source.name)} by gpurig-job convert.\n", *map(_comment, self.remarks)]
        parts += [dump(self.head), "samples:\n"]
        for sample in self.samples:
            if sample.description:
                parts.append(f"# {comment_text(sample.description)}\n")
            parts.append("".join(f"- {line}" if not n else f"  {line}" for n, line in enumerate(_lines(sample.data))))
            parts += map(_comment, sample.remarks)
        return "".join(parts)


def unique_id(wanted: str, taken: set[str], otherwise: str) -> str:
    """A sample's id out of a text that a person wrote, unlike those taken; it counts as taken from now on."""
    base = re.sub(r"[^A-Za-z0-9._/:+]+", "-", wanted).strip("-._/:+")[:80].rstrip("-") or otherwise
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    taken.add(name)
    return name


def dump(data: Any) -> str:
    """YAML as suites are read: texts stay texts, several lines stand as such."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)


def _lines(data: Any) -> list[str]:
    return dump(data).splitlines(keepends=True)


def comment_text(text: str) -> str:
    """A text that cannot leave its comment's line: YAML ends lines at more than line feeds."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _comment(remark: Remark) -> str:
    lines = [remark.in_comment, *(f"  {line}" for line in remark.text.splitlines())]
    return "".join(f"# {comment_text(line)}".rstrip() + "\n" for line in lines)


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.2 would not read as text; no aliases, which nobody wants to read."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's own protocol
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if not is_text(text) or not text.replace("\n", "").isprintable():
        style = '"'
    elif "\n" in text and all(line == line.rstrip() for line in text.split("\n")):
        style = "|"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
