"""Where a model is: `hf:REPO/FILE@REV`, `gitlab:PROJECT/PACKAGE/VERSION/FILE`, a path, or a catalogue's name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gpurig.common.errors import InputError
from gpurig.common.models.names import SUFFIX

COMMIT = re.compile(r"[0-9a-f]{40}")
# huggingface_hub.utils.validate_repo_id, and an owner that the hub demands of models.
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,200}", re.ASCII)
_FILE = re.compile(r"(?!.*(?:^|/)\.\.?(?:/|$))[\w.+ -]+(?:/[\w.+ -]+)*\.gguf", re.ASCII)
# lib/gitlab/regex.rb: generic_package_name_regex, generic_package_version_regex.
_PACKAGE = re.compile(r"[A-Za-z0-9._-]{1,255}")
_VERSION = re.compile(r"[A-Za-z0-9.+_-]{1,255}")
_PROJECT = re.compile(r"\d{1,12}|[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)+")
_HINT = "hf:REPO/FILE.gguf@REV, gitlab:PROJECT/PACKAGE/VERSION/FILE.gguf, a path, or a name of the catalogue"


@dataclass(frozen=True)
class HubReference:
    """A file in a repository of the hub; `file` may hold folders; `revision` is a commit, a tag, a branch or None."""

    repository: str
    file: str
    revision: str | None = None

    def __str__(self) -> str:
        """As a user writes it."""
        return f"hf:{self.repository}/{self.file}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class PackageReference:
    """A file of a generic package; `project` is an id or a path."""

    project: str
    package: str
    version: str
    file: str

    def __str__(self) -> str:
        """As a user writes it."""
        return f"gitlab:{self.project}/{self.package}/{self.version}/{self.file}"


@dataclass(frozen=True)
class PathReference:
    """A file on this machine, or a folder that holds one model."""

    path: Path

    def __str__(self) -> str:
        """As a user writes it."""
        return str(self.path)


@dataclass(frozen=True)
class BundledReference:
    """A file that gpurig itself carries."""

    file: str

    def __str__(self) -> str:
        """For a record."""
        return "bundled"


Reference = HubReference | PackageReference | PathReference | BundledReference


def hub_reference(repository: str, file: str, revision: str | None = None) -> HubReference:
    """A checked reference.

    Raises:
        InputError: a part cannot be what it stands for; the message names the part.
    """
    _check("repository", repository, _REPOSITORY, "OWNER/NAME")
    _check("file", file, _FILE, "the name of a .gguf file, its folders before it")
    if revision is not None:
        _check("revision", revision, _REVISION, "a commit's hash (40 hexadecimal digits), a tag or a branch")
    return HubReference(repository, file, revision)


def package_reference(project: str, package: str, version: str, file: str) -> PackageReference:
    """A checked reference.

    Raises:
        InputError: a part cannot be what it stands for; the message names the part.
    """
    _check("project", project, _PROJECT, "a number, or GROUP/PROJECT")
    _check("package", package, _PACKAGE, "letters, digits and . _ -")
    _check("version", version, _VERSION, "letters, digits and . _ + -")
    _check("file", file, _FILE, "the name of a .gguf file")
    if "/" in file:
        raise InputError(f'file "{file}" holds a folder', hint="a generic package's file has no folder here")
    return PackageReference(project, package, version, file)


def _check(what: str, value: str, pattern: re.Pattern[str], wanted: str) -> None:
    if not pattern.fullmatch(value):
        raise InputError(f'{what} "{value}" is not valid', hint=f"it must be {wanted}")


def parse_reference(text: str) -> Reference | str:
    """What the user named.

    Returns:
        A reference, or the text itself where it can only be a catalogue's name.

    Raises:
        InputError: it begins like a reference and is none.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind == "hf":
        return _parse_hub(text, rest)
    if colon and kind == "gitlab":
        words = rest.rsplit("/", 3)
        if len(words) != 4:
            raise InputError(f'"{text}" does not name a file of a generic package', hint=_HINT)
        return package_reference(*words)
    if "/" in text or text.endswith(SUFFIX) or text in {".", ".."}:
        return PathReference(Path(text))
    if colon:
        raise InputError(f'"{text}" names no source that is known', hint=_HINT)
    return text


def _parse_hub(text: str, rest: str) -> HubReference:
    where, at, revision = rest.partition("@")
    words = where.split("/", 2)
    if len(words) != 3 or (at and not revision):
        raise InputError(f'"{text}" does not name a file of a repository', hint=_HINT)
    return hub_reference(f"{words[0]}/{words[1]}", words[2], revision or None)
