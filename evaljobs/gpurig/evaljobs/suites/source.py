"""YAML that a person wrote: read safely, within bounds, and with the line of every value.

Scalars follow YAML 1.2's core schema: `yes`, `on` and `012` are text, as people expect of them, and dates stay text.
Anchors and aliases work; merge keys (`<<`) do not.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gpurig.common.errors import InputError
from gpurig.common.files import read_text

MAX_BYTES = 16 * 1024 * 1024
MAX_VALUES = 1_000_000
MAX_DEPTH = 64

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class Source:
    """A YAML file's content.

    Attributes:
        data: what it says, as JSON has it: dict, list, str, int, float, bool, None.
        lines: the line (from 1) where the value at a location stands; a mapping's value counts from its key.
    """

    path: Path
    data: Any
    lines: dict[Location, int]

    def line(self, location: Location) -> int:
        """The line of the value at `location`, or of the nearest value around it that the file has."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)


class _BoundedLoader(yaml.SafeLoader):
    """PyYAML's composer with a bound on nesting, which it would otherwise meet as a RecursionError."""

    depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"nested deeper than {MAX_DEPTH} levels",
                problem_mark=self.get_mark(),
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _CoreLoader(_BoundedLoader):
    """Scalars as YAML 1.2's core schema resolves them, without .nan and .inf, which no field takes."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own protocol


_RESOLVERS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
)
for _tag, _pattern, _first in _RESOLVERS:
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


class Reference(list[Any]):
    """GitLab's `!reference [job, key]`: a list to everybody who does not ask."""


def is_text(plain: str) -> bool:
    """Whether these characters without quotes are a text to YAML 1.2, and no number, true, false or null."""
    return not any(re.fullmatch(pattern, plain) for _, pattern, _ in _RESOLVERS)


class YamlProblemError(Exception):
    """Text that is no acceptable YAML.

    Attributes:
        line: from 1; 0 where the parser does not say.
        reason: what is wrong, one line.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = " ".join(reason.split())


def read_source(path: Path) -> Source:
    """Read a YAML file.

    Raises:
        InputError: missing, too large, no YAML, a key twice, nested too deep; the message names file and line.
        PrerequisiteError: no permission.
    """
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        raise InputError(
            f"{path} is larger than {MAX_BYTES // 1024**2} MiB", hint="split the samples over several suites"
        )
    lines: dict[Location, int] = {}
    try:
        data = compose_core(read_text(path), lines=lines, plain=True)
    except YamlProblemError as error:
        raise InputError(f"{path}:{error.line}: {error.reason}", hint="correct that line") from error
    return Source(path=path, data=data, lines=lines)


def compose(
    text: str,
    *,
    loader: type[yaml.SafeLoader] = _BoundedLoader,
    lines: dict[Location, int] | None = None,
    max_values: int = MAX_VALUES,
    plain: bool = False,
) -> Any:
    """The data of one YAML document, dates as text, bounded in depth and in the number of values aliases make of it.

    Args:
        text: one document.
        loader: which scalars mean what; by default YAML 1.1's, as GitLab reads them.
        lines: filled with the line of every value.
        max_values: how many values there may be, aliases written out.
        plain: nothing that JSON does not have: keys become texts, binary values and endless numbers are refused.

    Raises:
        YamlProblemError: no YAML, several documents, an unknown tag, a key twice, too deep, too large.
    """
    reader = None
    try:
        reader, node = (_composed_fast(text) if plain else None) or _composed(text, loader)
        return (
            None
            if node is None
            else _Converter(reader, lines if lines is not None else {}, max_values, plain=plain).convert(node, (), 0)
        )
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ", ".join(part for part in (error.context, error.problem) if part) or "no valid YAML"
        raise YamlProblemError(mark.line + 1 if mark else 0, reason) from error
    except yaml.YAMLError as error:
        raise YamlProblemError(_line_of(text, error), str(error).splitlines()[0]) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # What PyYAML lets through where a tag is written out before a value that it does not fit (`!!bool 7`).
        raise YamlProblemError(0, f"a value does not fit its type: {error}") from error
    finally:
        if reader is not None:
            reader.dispose()


def _composed(text: str, loader: type[yaml.SafeLoader]) -> tuple[yaml.SafeLoader, Node | None]:
    reader = loader(text)
    return reader, reader.get_single_node()


def _composed_fast(text: str) -> tuple[yaml.SafeLoader, Node | None] | None:
    """The same by libyaml, three times as fast; None where it is not there or finds something wrong.

    Then PyYAML's own parser says what it is, in the words that people know from it.
    """
    loader = _libyaml_loader()
    if loader is None:
        return None
    try:
        # Its composer recurses on the C stack, so how deep it will is counted first.
        return _composed(text, loader) if _depth(loader(text)) <= MAX_DEPTH else None
    except (yaml.YAMLError, ValueError):
        return None


@functools.cache
def _libyaml_loader() -> type[yaml.SafeLoader] | None:
    if not yaml.__with_libyaml__:
        return None
    # The two loaders have the same methods and no common class that the type stubs know.
    return type("_FastLoader", (yaml.CSafeLoader,), {"yaml_implicit_resolvers": _CoreLoader.yaml_implicit_resolvers})


def _depth(reader: Any) -> int:
    """How deep collections are nested, aliases not followed."""
    depth = deepest = 0
    try:
        while not isinstance(event := reader.get_event(), yaml.StreamEndEvent):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            deepest = max(deepest, depth)
    finally:
        reader.dispose()
    return deepest


def compose_core(
    text: str, *, lines: dict[Location, int] | None = None, max_values: int = MAX_VALUES, plain: bool = False
) -> Any:
    """The data of one document with YAML 1.2's scalars, as suites have them; the arguments are `compose`'s.

    Raises:
        YamlProblemError: as `compose`.
    """
    return compose(text, loader=_CoreLoader, lines=lines, max_values=max_values, plain=plain)


def _line_of(text: str, error: yaml.YAMLError) -> int:
    position = getattr(error, "position", None)
    return text.count("\n", 0, position) + 1 if isinstance(position, int) else 0


class _Converter:
    """Turns nodes into plain data, counting every value that an alias repeats."""

    def __init__(self, reader: yaml.SafeLoader, lines: dict[Location, int], max_values: int, *, plain: bool) -> None:
        self._reader = reader
        self._plain = plain
        self._max_values = max_values
        self._lines = lines
        self._count = 0

    def convert(self, node: Node, location: Location, depth: int) -> Any:
        self._count_one(node)
        if depth > MAX_DEPTH:
            # Only an alias inside its own anchor gets here: the composer bounds what is written.
            raise _marked(node, f"nested deeper than {MAX_DEPTH} levels, its aliases written out")
        self._lines.setdefault(location, node.start_mark.line + 1)
        if node.tag == "!reference" and isinstance(node, SequenceNode):
            return Reference(self.convert(item, (*location, index), depth + 1) for index, item in enumerate(node.value))
        if not node.tag.startswith("tag:yaml.org,2002:"):
            raise _marked(node, f"unknown tag {node.tag}")
        if isinstance(node, SequenceNode):
            return [self.convert(item, (*location, index), depth + 1) for index, item in enumerate(node.value)]
        if isinstance(node, MappingNode):
            return self._mapping(node, location, depth)
        if node.tag == "tag:yaml.org,2002:timestamp":
            return node.value
        value = self._reader.construct_object(node)
        if self._plain and not _is_plain(value):
            raise _marked(node, f"{_printable(node.value)} is no text and no number that can be used")
        return value

    def _count_one(self, node: Node) -> None:
        self._count += 1
        if self._count > self._max_values:
            raise _marked(node, f"more than {self._max_values} values, its aliases written out")

    def _mapping(self, node: MappingNode, location: Location, depth: int) -> dict[Any, Any]:
        answer: dict[Any, Any] = {}
        written: dict[Any, int] = {}
        for key_node, value_node, own in self._merged(node, depth):
            if not isinstance(key_node, ScalarNode):
                raise _marked(key_node, "a key must be a plain value")
            key = self.convert(key_node, (*location, "?"), depth + 1)
            if self._plain and not isinstance(key, str):
                key = json.dumps(key)
            if own and key in written:
                raise _marked(key_node, f"key {key!r} is there twice, first in line {written[key]}")
            if own:
                written[key] = key_node.start_mark.line + 1
            here = (*location, key if isinstance(key, str | int) else str(key))
            self._lines[here] = key_node.start_mark.line + 1
            answer[key] = self.convert(value_node, here, depth + 1)
        return answer

    def _merged(self, node: MappingNode, depth: int) -> Iterator[tuple[Node, Node, bool]]:
        """The pairs of a mapping, those of its merge keys first, so that its own win (YAML 1.1; GitLab allows them).

        The third of each says whether the pair is the mapping's own.
        """
        if depth > MAX_DEPTH:
            raise _marked(node, f"merged deeper than {MAX_DEPTH} levels")
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                parts = value.value if isinstance(value, SequenceNode) else [value]
                # An earlier mapping of the list wins, so it comes last.
                for part in reversed(parts):
                    if not isinstance(part, MappingNode):
                        raise _marked(part, "<< must name a mapping or a list of mappings")
                    # Also an empty mapping counts: a tower of merges of nothing would take for ever.
                    self._count_one(part)
                    yield from ((name, held, False) for name, held, _ in self._merged(part, depth + 1))
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:merge":
                yield key, value, True


def _is_plain(value: Any) -> bool:
    """Whether JSON can hold a scalar, and UTF-8 too: half of a surrogate pair is no text."""
    if isinstance(value, str) and not value.isascii():
        return value.isprintable() or not re.search("[\ud800-\udfff]", value)
    return not isinstance(value, bytes) and not (isinstance(value, float) and not math.isfinite(value))


def _printable(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


def _marked(node: Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
