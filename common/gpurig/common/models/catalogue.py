"""The catalogue: models known by name, with where they are, what they hash to, and what they may be used for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpurig.common.errors import InputError
from gpurig.common.files import read_text
from gpurig.common.models.catalogue_fields import Fields, all_problems
from gpurig.common.models.licenses import find_license
from gpurig.common.models.names import check_name, part_files
from gpurig.common.models.reference import (
    COMMIT,
    BundledReference,
    HubReference,
    PackageReference,
    PathReference,
    Reference,
    hub_reference,
    package_reference,
)

OWN = Path(__file__).parent / "assets" / "catalogue.toml"
ROLES = ("generator", "grader", "embedding")
# How a chat template writes its turns; "none" is a model that takes a prompt as it is.
TEMPLATES = ("none", "chatml", "llama3", "gemma", "granite", "phi", "mistral", "harmony", "deepseek")
# The sizes that cards are sold in, up to what one catalogue entry may ask for (provisioning/vram.py has all of them).
_MOST_VRAM_GB = 192
_MOST_CONTEXT = 2**24
_SOURCES = ("hf", "gitlab", "path", "bundled")
_UNKNOWABLE = ("revision", "sha256", "size_bytes")
_VERSION = 1


@dataclass(frozen=True)
class CatalogueFile:
    """One file of a model: its name at its source, and what is known of it."""

    file: str
    sha256: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class Entry:
    """One model of a catalogue.

    Attributes:
        source: where its first file is.
        files: all of them, in order.
        license: SPDX identifier or vendor's name.
        context: tokens it was made for.
        chat_template: one of TEMPLATES.
        roles: what it is good for, of ROLES.
        vram_gb: the smallest VRAM class that holds it with 4096 tokens; 0 for a model that needs no GPU.
        unknown: of revision, sha256 and size_bytes, what could not be looked up. `pull` finds it out and pins it.
        about: one line for a person.
        place: the catalogue it stands in.
    """

    name: str
    source: Reference
    files: tuple[CatalogueFile, ...]
    license: str
    context: int
    chat_template: str
    roles: tuple[str, ...]
    vram_gb: int
    unknown: tuple[str, ...] = ()
    about: str = ""
    place: str = ""

    @property
    def size_bytes(self) -> int | None:
        """Of all files; None where one is not known."""
        sizes = [file.size_bytes for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)


@dataclass(frozen=True)
class Catalogue:
    """All entries by name; a later file's entry replaces an earlier one's."""

    entries: Mapping[str, Entry] = field(default_factory=dict)

    def find(self, name: str) -> Entry | None:
        """The entry, or None."""
        return self.entries.get(name)

    def of_file(self, file: str) -> Entry | None:
        """The entry whose first file is called `file` at its source, wherever it lies now; None where several are."""
        found = [entry for entry in self.entries.values() if entry.files[0].file.rpartition("/")[2] == file]
        return found[0] if len(found) == 1 else None

    def like(self, name: str) -> tuple[str, ...]:
        """Names that a user may have meant."""
        import difflib  # noqa: PLC0415 - for a message only

        return tuple(difflib.get_close_matches(name, self.entries, n=3, cutoff=0.5))


def load_catalogue(more: Iterable[Path] = (), *, own: Path = OWN) -> Catalogue:
    """The catalogue that gpurig carries, and on top of it the entries of the files in `more`.

    Raises:
        InputError: a file is missing or wrong; every mistake names its entry and field.
        PrerequisiteError: no permission.
    """
    entries: dict[str, Entry] = {}
    for path in (own, *more):
        entries |= {entry.name: entry for entry in read_catalogue(read_text(path), place=str(path))}
    return Catalogue(entries)


def read_catalogue(text: str, *, place: str) -> tuple[Entry, ...]:
    """The entries of a catalogue's text.

    Raises:
        InputError: it is wrong; every mistake names its entry and field.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"the catalogue {place} is no TOML: {error}", hint="correct that line") from error
    problems: list[str] = []
    if document.get("version") != _VERSION:
        problems.append(f"version: must be {_VERSION}")
    models = document.get("models", {})
    if not isinstance(models, dict):
        problems.append('models: must be tables, [models."NAME"]')
        models = {}
    problems += [f"{key}: is no part of a catalogue" for key in document if key not in {"version", "models"}]
    entries = [_entry(name, table, place, problems) for name, table in models.items()]
    all_problems(place, problems)
    return tuple(entry for entry in entries if entry is not None)


def _entry(name: str, table: Any, place: str, problems: list[str]) -> Entry | None:
    if not isinstance(table, dict):
        problems.append(f"{name}: must be a table")
        return None
    fields = Fields(name, table, problems)
    _try(lambda: check_name(name), fields, "name")
    kind = fields.text("source", pattern=re.compile("|".join(_SOURCES)), like=f"one of {', '.join(_SOURCES)}")
    source = _source(kind, fields)
    names = _try(lambda: part_files(_file_of(source)), fields, "file") or ("",)
    hashes, sizes = fields.hashes("sha256", len(names)), fields.sizes("size_bytes", len(names))
    license_ = fields.text("license")
    if license_ and find_license(license_) is None:
        fields.wrong("license", f"{license_!r} is not known (common/models/licenses.py)")
    unknown = fields.words("unknown", _UNKNOWABLE, needed=False)
    absent = _absent(source, hashes, sizes)
    if set(unknown) != set(absent):
        fields.wrong("unknown", f"must name what is absent: {', '.join(absent) or 'nothing'}")
    entry = Entry(
        name=name,
        source=source,
        files=tuple(CatalogueFile(*each) for each in zip(names, hashes, sizes, strict=True)),
        license=license_,
        context=fields.number("context", least=1, most=_MOST_CONTEXT),
        chat_template=fields.text("chat_template", pattern=re.compile("|".join(TEMPLATES)), like="a known template"),
        roles=fields.words("roles", ROLES),
        vram_gb=fields.number("vram_gb", least=0, most=_MOST_VRAM_GB),
        unknown=unknown,
        about=fields.text("about", needed=False),
        place=place,
    )
    fields.finish()
    return entry


def _source(kind: str, fields: Fields) -> Reference:
    if kind == "gitlab":
        words = tuple(fields.text(name) for name in ("project", "package", "version", "file"))
        read = _try(lambda: package_reference(*words), fields, "source") if all(words) else None
        return read or PackageReference(*words)
    if kind == "path":
        return PathReference(Path(fields.text("path") or "."))
    if kind == "bundled":
        return BundledReference(fields.text("file"))
    repository, file = fields.text("repository"), fields.text("file")
    revision = fields.text("revision", needed=False, pattern=COMMIT, like="a commit's 40 hexadecimal digits") or None
    read_hub = (
        _try(lambda: hub_reference(repository, file, revision), fields, "source") if repository and file else None
    )
    return read_hub or HubReference(repository, file, revision)


def _file_of(source: Reference) -> str:
    return source.path.name if isinstance(source, PathReference) else source.file


def _absent(source: Reference, hashes: tuple[str | None, ...], sizes: tuple[int | None, ...]) -> tuple[str, ...]:
    """What an entry does not say; of a path nothing need be said."""
    if isinstance(source, PathReference):
        return ()
    lacking = {
        "revision": isinstance(source, HubReference) and source.revision is None,
        "sha256": None in hashes,
        "size_bytes": None in sizes,
    }
    return tuple(name for name, missing in lacking.items() if missing)


def _try(read: Callable[[], Any], fields: Fields, name: str) -> Any:
    try:
        return read()
    except InputError as error:
        fields.wrong(name, error.message)
        return None
