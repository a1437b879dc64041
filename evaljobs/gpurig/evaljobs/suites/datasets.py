"""Data sets: samples from YAML, JSON Lines and CSV files, each with the line that a person finds it in."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from gpurig.common.errors import InputError
from gpurig.common.files import read_bytes
from gpurig.evaljobs.suites.composition import Origin, Problem, field_text, unreadable
from gpurig.evaljobs.suites.fields import CheckEntry, Name, NonEmpty, Scalar, Strict
from gpurig.evaljobs.suites.source import Location, Source, read_source
from gpurig.evaljobs.suites.wording import in_words, meant

# 10,000 samples of 25 kB each.
MAX_BYTES = 256 * 1024 * 1024
_MOST_PROBLEMS = 100

Format = Literal["yaml", "jsonl", "csv", "tsv"]
_SUFFIXES: Mapping[str, Format] = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}
_TEXTS = ("id", "input", "reference")


class FieldsSpec(Strict):
    """Which column or key of a data set is which field of a sample.

    Attributes:
        vars: column by the variable's name.
    """

    id: NonEmpty | None = None
    input: NonEmpty = "input"
    reference: NonEmpty | None = None
    tags: NonEmpty | None = None
    vars: dict[Name, NonEmpty] = Field(default_factory=dict)

    def columns(self) -> dict[Location, str]:
        """The column by the sample's field."""
        named: dict[Location, str] = {("vars", name): column for name, column in self.vars.items()}
        for name in (*_TEXTS, "tags"):
            if column := getattr(self, name):
                named[name,] = column
        return named


class DatasetSpec(Strict):
    """An entry of `samples` that names a file.

    Attributes:
        file: relative to the file that names it.
        format: told by the file's ending where None.
        fields: None: the names are ours; a column of a CSV file that is no field is a variable then.
        delimiter: of a CSV file.
        tags, vars, checks: what every sample of the file has beside its own; its own variables win.
    """

    file: NonEmpty
    format: Format | None = None
    fields: FieldsSpec | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    tags: tuple[Name, ...] = ()
    vars: dict[Name, Scalar] = Field(default_factory=dict)
    checks: tuple[CheckEntry, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """What a file holds.

    Attributes:
        source: for the lines.
        samples: as YAML would have them; not yet held against the format.
        below: where in the source they stand.
        columns: the file's names for a sample's fields, where they differ.
    """

    source: Source
    samples: list[Any] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    below: Location = ()
    columns: Mapping[Location, str] = field(default_factory=dict)


def names_a_file(entry: Any) -> bool:
    """Whether an entry of `samples`, or the whole of it, names a data set."""
    return isinstance(entry, str) or (isinstance(entry, dict) and "file" in entry)


class _RefusedError(Exception):
    """A data set that cannot be used, and why."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__()
        self.problems = list(problems)


def dataset_of(entry: Any, origin: Origin) -> Dataset:
    """Read the data set that an entry names; what is wrong with the entry or the file is among its problems.

    Raises:
        PrerequisiteError: no permission.
    """
    given = {"file": entry} if isinstance(entry, str) else entry
    try:
        spec, path, format_ = _named(given, origin, at=() if isinstance(entry, str) else ("file",))
        source, below = _read(path, format_, spec)
        return _samples(source, format_, spec, given, below)
    except _RefusedError as refused:
        return Dataset(origin.source, problems=refused.problems)


def _named(given: Any, origin: Origin, *, at: Location) -> tuple[DatasetSpec, Path, Format]:
    """What an entry says, the file it names (its name stands at `at`), and how that is written."""

    def problem(location: Location, message: str) -> Problem:
        line = origin.source.line((*origin.own, *location))
        return Problem(origin.source.path, line, field_text((*origin.shown, *location)), message)

    try:
        spec = DatasetSpec.model_validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        found = [problem(*one) for entry in error.errors() for one in in_words(entry, given, DatasetSpec)]
        raise _RefusedError(*found) from error
    path = origin.source.path.parent / spec.file
    format_ = spec.format or _SUFFIXES.get(path.suffix.lower())
    if not path.is_file():
        raise _RefusedError(problem(at, f"there is no file {path}"))
    if format_ is None:
        known = ", ".join(_SUFFIXES)
        text = f"{path.name} does not tell its format (endings: {known}): give format: yaml, jsonl, csv or tsv"
        raise _RefusedError(problem(at, text))
    if spec.delimiter and format_ not in {"csv", "tsv"}:
        raise _RefusedError(problem(("delimiter",), f"a {format_} file has none"))
    return spec, path, format_


def read_rows(path: Path, format_: Format, spec: DatasetSpec) -> Source:
    """The rows of a file, a list, with their lines; nothing is made of them yet.

    Raises:
        InputError: it cannot be read; of several problems the first is the message and all are the details.
        PrerequisiteError: no permission.
    """
    try:
        return _read(path, format_, spec)[0]
    except _RefusedError as refused:
        said = [str(problem) for problem in refused.problems]
        raise InputError(said[0], hint="correct the file", details=said[1:]) from refused


def _read(path: Path, format_: Format, spec: DatasetSpec) -> tuple[Source, Location]:
    """A file's rows with their lines, and where in the source they stand."""
    try:
        if format_ == "yaml":
            return _yaml_list(read_source(path))
        text = _text(path)
    except InputError as error:
        raise _RefusedError(unreadable(path, error)) from error
    rows: list[Any] = []
    lines: dict[Location, int] = {}
    broken: list[Problem] = []
    read = _json_lines(text) if format_ == "jsonl" else _table(text, spec.delimiter or "\t" * (format_ == "tsv") or ",")
    for number, row in read:
        if isinstance(row, str):
            broken.append(Problem(path, number, "", row))
            if len(broken) >= _MOST_PROBLEMS:
                break
            continue
        lines[len(rows),] = number
        rows.append(row)
    if not rows and not broken:
        broken.append(Problem(path, 1, "", "there are no samples in it"))
    if broken:
        raise _RefusedError(*broken)
    return Source(path, rows, lines), ()


def _yaml_list(source: Source) -> tuple[Source, Location]:
    """A list of samples, or a mapping that has one under `samples`."""
    below: Location = ("samples",) if isinstance(source.data, dict) else ()
    rows = source.data.get("samples") if isinstance(source.data, dict) else source.data
    if not isinstance(rows, list):
        raise _RefusedError(Problem(source.path, 1, "", "must be a list of samples: begin each with '- id: …'"))
    if not rows:
        raise _RefusedError(Problem(source.path, 1, "", "there are no samples in it"))
    return Source(source.path, rows, source.lines), below


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path} is larger than {MAX_BYTES // 1024**2} MiB", hint="split it")
    raw = read_bytes(path)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: the text is not in UTF-8", hint="save the file as UTF-8") from error


def _json_lines(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Each line's number and object, or what is wrong with it."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object, parse_constant=_no_number)
            line.encode() if "\\u" not in line else json.dumps(row, ensure_ascii=False).encode()
        except json.JSONDecodeError as error:
            yield number, f"no JSON: {error.msg} in column {error.colno}"
        except UnicodeEncodeError:
            yield number, "half of a surrogate pair (\\ud800 to \\udfff) is no text"
        except ValueError as error:
            yield number, f"no JSON: {error}"
        except RecursionError:
            yield number, "nested too deep"
        else:
            yield number, row if isinstance(row, dict) else "must be an object: {…}, one sample a line"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'the key "{twice}" is there twice')
    return made


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")


def _table(text: str, delimiter: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Each row's first line and its cells by column, or what is wrong with it."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    begins = 1
    try:
        for cells in reader:
            first, begins = begins, reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = [name.strip() for name in cells]
                if wrong := _wrong_header(header, delimiter):
                    yield first, wrong
                    return
            elif len(cells) != len(header):
                yield first, f"{len(cells)} cells, but the header has {len(header)}"
            else:
                yield first, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        limit = csv.field_size_limit()
        told = f"a cell over {limit:,} characters: use JSON Lines" if "field limit" in str(error) else str(error)
        yield begins, f"no CSV: {told}"


def _wrong_header(header: list[str], delimiter: str) -> str:
    if "" in header:
        return f"column {header.index('') + 1} of the header has no name"
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        return f'the header has the column "{twice[0]}" twice'
    other = next((sign for sign in (";", "\t", "|") if len(header) == 1 and sign in header[0]), "")
    if other and other != delimiter:
        return f'the header is one cell with "{other}" in it: give delimiter: "{other}"'
    return ""


def _samples(source: Source, format_: Format, spec: DatasetSpec, given: Mapping[str, Any], below: Location) -> Dataset:
    """The rows as samples, with what the entry gives to all of them."""
    problems: list[Problem] = []
    warnings: list[Problem] = []
    columns = spec.fields.columns() if spec.fields else {}
    table = format_ in {"csv", "tsv"}
    if table and source.data:
        known = tuple(source.data[0])
        wanted = columns or {("input",): "input"}
        problems += [
            Problem(source.path, 1, "", f'no column "{name}"{meant(name, known)} (it has: {", ".join(known)})')
            for name in wanted.values()
            if name not in known
        ]
        if problems:
            return Dataset(source, problems=problems)
    extra = _extra(spec, given)
    samples: list[Any] = []
    numbered = 0
    for index, row in enumerate(source.data):
        if not isinstance(row, dict):
            samples.append(row)
            continue
        if spec.fields is not None:
            sample, missing = _mapped(row, columns)
            line = source.line((*below, index))
            where = field_text(("samples", index))
            problems += [Problem(source.path, line, where, f'"{name}" is missing') for name in missing]
        else:
            sample = _own_names(row) if table else dict(row)
        if table and "tags" in sample:
            sample["tags"] = [tag for tag in sample["tags"].replace(",", " ").replace(";", " ").split() if tag]
        if "id" not in sample and (table or spec.fields is not None):
            numbered += 1
            sample["id"] = f"{source.path.stem}-{index + 1}"
        samples.append(_with(sample, extra))
        if len(problems) >= _MOST_PROBLEMS:
            break
    if numbered:
        text = "the samples have no ids and are numbered: a row put in between will shift those after it"
        warnings.append(Problem(source.path, 1, "", text))
    renamed = {where: name for where, name in columns.items() if field_text(where) != name}
    return Dataset(source, samples, problems, warnings, below, renamed)


def _mapped(row: Mapping[str, Any], columns: Mapping[Location, str]) -> tuple[dict[str, Any], list[str]]:
    """A sample out of the row's values that `fields` names, and the names that the row lacks."""
    sample: dict[str, Any] = {}
    missing = [column for column in columns.values() if column not in row]
    for where, column in columns.items():
        if column not in row:
            continue
        value = row[column]
        if where[0] in _TEXTS and isinstance(value, int | float | bool):
            value = json.dumps(value)
        if where[0] == "vars":
            sample.setdefault("vars", {})[where[1]] = value
        else:
            sample[str(where[0])] = value
    return sample, missing


def _own_names(row: Mapping[str, str]) -> dict[str, Any]:
    """A table's row whose columns have our names; any other is a variable."""
    sample: dict[str, Any] = {name: value for name, value in row.items() if name in {*_TEXTS, "tags"}}
    extra = {name.removeprefix("vars."): value for name, value in row.items() if name not in sample}
    return {**sample, "vars": extra} if extra else sample


def _extra(spec: DatasetSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    # The checks as they were written: that they are right is known by now.
    return {"tags": list(spec.tags), "vars": dict(spec.vars), "checks": given.get("checks", [])}


def _with(sample: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """A sample with what its data set gives to all; a value of a wrong type stays for the format to refuse."""
    for key in ("tags", "checks"):
        if extra[key] and isinstance(sample.get(key, []), list):
            sample[key] = [*extra[key], *sample.get(key, [])]
    if extra["vars"] and isinstance(sample.get("vars", {}), dict):
        sample["vars"] = {**extra["vars"], **sample.get("vars", {})}
    return sample
