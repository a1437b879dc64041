"""Where a value of a configuration of promptfoo's was found, and the files that its tests stand in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpurig.common.errors import InputError
from gpurig.evaljobs.converting.assertions import compact_assertion
from gpurig.evaljobs.converting.draft import Draft, Remark, dump
from gpurig.evaljobs.suites.composition import field_text
from gpurig.evaljobs.suites.datasets import DatasetSpec, Format, read_rows
from gpurig.evaljobs.suites.source import Location, Source

_FORMATS: dict[str, Format] = {".yaml": "yaml", ".yml": "yaml", ".json": "yaml", ".jsonl": "jsonl", ".csv": "csv"}
_CELLS = {"__prefix": "a prompt is asked as it is", "__suffix": "a prompt is asked as it is"}


@dataclass(frozen=True)
class Found:
    """A value and where it stands."""

    path: Path
    source: Source
    where: Location
    data: Any

    def at(self, *below: str | int) -> Found:
        """The value below this one; its data is None where there is none."""
        data = self.data
        for part in below:
            if isinstance(data, dict):
                data = data.get(part)
            elif isinstance(data, list) and isinstance(part, int) and part < len(data):
                data = data[part]
            else:
                data = None
        return Found(self.path, self.source, (*self.where, *below), data)

    def remark(self, reason: str, *, changed: bool = False) -> Remark:
        """What a person should know of it."""
        text = "" if self.data is None else dump(self.data).removesuffix("...\n").rstrip()
        line = self.source.line(self.where)
        return Remark(self.path, line, field_text(self.where) or "the file", reason, "" if changed else text, changed)


def loaded_tests(found: Found, draft: Draft) -> Iterator[Found]:
    """The tests of a list, or of the files that it names; what is none is remarked."""
    if found.data is None:
        return
    entries = [found.at(index) for index in range(len(found.data))] if isinstance(found.data, list) else [found]
    for entry in entries:
        if isinstance(entry.data, str):
            yield from _file_tests(entry, draft)
        elif isinstance(entry.data, dict) and "path" not in entry.data:
            yield entry
        else:
            draft.remarks.append(entry.remark("it is neither a test nor a file of tests"))


def _file_tests(entry: Found, draft: Draft) -> Iterator[Found]:
    name = entry.data.removeprefix("file://")
    folder = entry.path.parent
    files = [folder / name] if "*" not in name else sorted(folder.glob(name))
    if "://" in name or not files or not all(file.suffix in _FORMATS and file.is_file() for file in files):
        draft.remarks.append(entry.remark("tests are read from YAML, JSON, JSON Lines and CSV files that are there"))
        return
    for file in files:
        source = read_rows(file, _FORMATS[file.suffix], DatasetSpec(file=file.name))
        whole = Found(file, source, (), source.data)
        for index, row in enumerate(source.data):
            if not isinstance(row, dict):
                draft.remarks.append(whole.at(index).remark("it is no test"))
            elif file.suffix == ".csv":
                yield _row_test(whole.at(index), draft)
            else:
                yield whole.at(index)


def _row_test(found: Found, draft: Draft) -> Found:
    """A row of a table as a test: variables, and cells whose names begin with two underscores."""
    test: dict[str, Any] = {"vars": {name: cell for name, cell in found.data.items() if not name.startswith("__")}}
    test["assert"] = [
        compact_assertion(cell) for name, cell in found.data.items() if name.startswith("__expected") and cell.strip()
    ]
    for name, cell in found.data.items():
        if name == "__description" and cell:
            test["description"] = cell
        elif name == "__threshold" and cell:
            try:
                test["threshold"] = float(cell)
            except ValueError as error:
                line = found.source.line(found.where)
                raise InputError(f"{found.path}:{line}: __threshold: {cell} is no number", hint="correct it") from error
        elif name.startswith("__") and not name.startswith("__expected") and cell:
            draft.remarks.append(found.at(name).remark(_CELLS.get(name, "a sample has no such field")))
    return Found(found.path, found.source, found.where, test)
