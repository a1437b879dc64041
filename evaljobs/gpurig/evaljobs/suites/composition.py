"""One suite out of several files: what it includes, its data sets, its defaults; and where each value was written.

The rules are in docs/suites.md ("Several files"). Nothing is judged here but what makes a file unusable: the values are
held against the format afterwards, and a problem with one of them is told where a person wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpurig.common.errors import InputError
from gpurig.evaljobs.suites.source import Location, Source, read_source

# What only suite.yaml itself may say.
_OWN = ("version", "name", "description")
_LISTS = ("checks", "samples", "gate")
_MAPPINGS = ("vars", "prompts", "generators", "defaults")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        field: where in the data, for example "samples[3].checks[0]".
    """

    path: Path
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        """One line, as compilers write it."""
        where = f"{self.path}:{self.line}: "
        return f"{where}{self.field}: {self.message}" if self.field else f"{where}{self.message}"


@dataclass(frozen=True)
class Origin:
    """Where a value of the composed data was written.

    Attributes:
        own: its location in `source`.
        shown: the location that a person is told.
        columns: the names that a data set's file has for a sample's fields, where they differ.
    """

    source: Source
    own: Location
    shown: Location
    columns: Mapping[Location, str] = field(default_factory=dict)


@dataclass
class Composition:
    """A suite's data, put together.

    Attributes:
        data: as one file would have it.
        origins: by location; a value without one of its own has that of the nearest value around it.
        problems: what was found on the way.
        warnings: what works and is probably not meant.
    """

    main: Source
    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[Location, Origin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def problem(self, location: Location, message: str) -> Problem:
        """A problem with the value at a location of the composed data."""
        for length in range(len(location), -1, -1):
            origin = self.origins.get(location[:length])
            if origin is not None:
                below = location[length:]
                shown = field_text((*origin.shown, *below))
                if below in origin.columns:
                    shown += f' ("{origin.columns[below]}")'
                return Problem(origin.source.path, origin.source.line((*origin.own, *below)), shown, message)
        return Problem(self.main.path, self.main.line(location), field_text(location), message)


def compose_suite(path: Path) -> Composition:
    """Read suite.yaml and every file that it names.

    Raises:
        InputError: suite.yaml itself cannot be used.
        PrerequisiteError: no permission.
    """
    main = read_source(path)
    if not isinstance(main.data, dict):
        raise InputError(
            f"{path}:1: a suite must be a mapping with version, name, generator and samples",
            hint="docs/suites.md describes the format",
        )
    made = Composition(main)
    _Composer(made, path.parent.resolve()).add(main, chain=(path.resolve(),))
    _apply_generator_defaults(made)
    return made


class _Composer:
    """Adds files to a composition, each file once."""

    def __init__(self, made: Composition, folder: Path) -> None:
        self._made = made
        self._folder = folder
        self._seen: set[Path] = set()

    def add(self, source: Source, *, chain: tuple[Path, ...]) -> None:
        """Add what a file includes, then what it says itself, which wins."""
        self._seen.add(chain[-1])
        self._includes(source, chain)
        for key, value in source.data.items():
            origin = Origin(source, (key,), (key,))
            if key == "include":
                continue
            if len(chain) > 1 and key in _OWN:
                self._say(origin, f"belongs to the suite's own file; {source.path.name} is included by another")
            elif key == "samples":
                self._samples(source, value)
            elif key in _LISTS and isinstance(value, list) and isinstance(self._made.data.get(key, []), list):
                self._extend(key, value, source)
            elif key in _MAPPINGS and isinstance(value, dict) and isinstance(self._made.data.get(key, {}), dict):
                self._made.data.setdefault(key, {}).update(value)
                self._made.origins.setdefault((key,), origin)
                for name in value:
                    self._made.origins[key, name] = Origin(source, (key, name), (key, name))
            else:
                self._made.data[key] = value
                self._made.origins[key,] = origin

    def _extend(self, key: str, values: list[Any], source: Source) -> None:
        held = self._made.data.setdefault(key, [])
        self._made.origins.setdefault((key,), Origin(source, (key,), (key,)))
        for index, value in enumerate(values):
            self._made.origins[key, len(held)] = Origin(source, (key, index), (key, index))
            held.append(value)

    def _includes(self, source: Source, chain: tuple[Path, ...]) -> None:
        named = source.data.get("include", [])
        names = [named] if isinstance(named, str) else named
        if not isinstance(names, list):
            self._say(Origin(source, ("include",), ("include",)), "must be a file's name, or a list of them")
            return
        for index, name in enumerate(names):
            where: Location = ("include",) if isinstance(named, str) else ("include", index)
            origin = Origin(source, where, where)
            if not isinstance(name, str) or not name:
                self._say(origin, "must be a file's name")
                continue
            file = (source.path.parent / name).resolve()
            if not file.is_relative_to(self._folder):
                self._say(origin, f"{name} lies outside of the suite's folder")
            elif file in chain:
                links = " → ".join(one.name for one in (*chain[chain.index(file) :], file))
                self._say(origin, f"files include each other in a circle: {links}")
            elif file in self._seen:
                continue  # two files may share a third
            elif not file.is_file():
                self._say(origin, f"there is no file {source.path.parent / name}")
            else:
                self._include(source.path.parent / name, chain, file)

    def _include(self, path: Path, chain: tuple[Path, ...], file: Path) -> None:
        try:
            included = read_source(path)
        except InputError as error:
            self._unreadable(path, error)
            return
        if not isinstance(included.data, dict):
            self._made.problems.append(Problem(path, 1, "", "must be a mapping, as a suite is"))
            return
        self.add(included, chain=(*chain, file))

    def _samples(self, source: Source, value: Any) -> None:
        from gpurig.evaljobs.suites.datasets import dataset_of, names_a_file  # noqa: PLC0415 - only where there are any

        single = names_a_file(value)
        if not single and not isinstance(value, list):
            self._made.data["samples"] = value
            self._made.origins["samples",] = Origin(source, ("samples",), ("samples",))
            return
        held = self._made.data.get("samples")
        if not isinstance(held, list):
            held = self._made.data["samples"] = []
        self._made.origins.setdefault(("samples",), Origin(source, ("samples",), ("samples",)))
        for index, entry in enumerate([value] if single else value):
            where: Location = ("samples",) if single else ("samples", index)
            if not names_a_file(entry):
                self._made.origins["samples", len(held)] = Origin(source, where, where)
                held.append(entry)
                continue
            found = dataset_of(entry, Origin(source, where, where))
            self._made.problems += found.problems
            self._made.warnings += found.warnings
            for number, sample in enumerate(found.samples):
                own: Location = (*found.below, number)
                shown: Location = ("samples", number)
                self._made.origins["samples", len(held)] = Origin(found.source, own, shown, found.columns)
                held.append(sample)

    def _unreadable(self, path: Path, error: InputError) -> None:
        """A file that cannot be read is one problem among others; its message may begin with file and line."""
        self._made.problems.append(unreadable(path, error))

    def _say(self, origin: Origin, message: str) -> None:
        line = origin.source.line(origin.own)
        self._made.problems.append(Problem(origin.source.path, line, field_text(origin.shown), message))


def _apply_generator_defaults(made: Composition) -> None:
    """`defaults.generator` under every generator's own keys; of `sampling` key by key."""
    data, defaults = made.data, made.data.get("defaults")
    given = defaults.get("generator") if isinstance(defaults, dict) else None
    if not isinstance(given, dict):
        return
    origin = made.origins["defaults", "generator"]
    if isinstance(data.get("generator"), dict):
        data["generator"] = _under(made, data["generator"], ("generator",), given, origin)
    if isinstance(data.get("generators"), dict):
        data["generators"] = {
            name: _under(made, own, ("generators", name), given, origin) if isinstance(own, dict) else own
            for name, own in data["generators"].items()
        }


def _under(
    made: Composition, own: dict[str, Any], place: Location, given: dict[str, Any], origin: Origin
) -> dict[str, Any]:
    """A mapping with the keys of `given` under its own; the origins say which are which."""
    merged = {**given, **own}
    for key in given.keys() - own.keys():
        made.origins[(*place, key)] = Origin(origin.source, (*origin.own, key), (*origin.shown, key))
    for key in given.keys() & own.keys():
        if key == "sampling" and isinstance(given[key], dict) and isinstance(own[key], dict):
            below = Origin(origin.source, (*origin.own, key), (*origin.shown, key))
            merged[key] = _under(made, own[key], (*place, key), given[key], below)
    return merged


def unreadable(path: Path, error: InputError) -> Problem:
    """A file that cannot be read as a problem; the error's own file and line are taken where it has them."""
    head, separator, rest = error.message.removeprefix(f"{path}:").partition(": ")
    if separator and head.isdigit():
        return Problem(path, int(head), "", rest)
    return Problem(path, 1, "", error.message.removeprefix(f"{path} ").removeprefix(f"{path}: "))


def field_text(location: Location) -> str:
    """A location as people write it: "samples[3].checks[0]"."""
    answer = ""
    for part in location:
        answer += f"[{part}]" if isinstance(part, int) else f"{'.' if answer else ''}{part}"
    return answer
