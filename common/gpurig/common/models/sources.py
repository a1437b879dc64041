"""From what the user named to the files of a model: each with where it is and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gpurig.common.assets import find_asset
from gpurig.common.errors import InputError
from gpurig.common.files import read_problem, read_text
from gpurig.common.models.catalogue import Catalogue, Entry
from gpurig.common.models.gitlab_packages import GitLabAccess, PackageFile
from gpurig.common.models.hub import HubAccess, HubFile
from gpurig.common.models.names import SUFFIX, model_name, part_files, part_of
from gpurig.common.models.origin import read_origin
from gpurig.common.models.reference import (
    BundledReference,
    HubReference,
    PackageReference,
    PathReference,
    Reference,
    parse_reference,
)
from gpurig.common.models.remote import LocalFile, RemoteFile
from gpurig.common.models.transfer import Wanted

_SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Access:
    """How to reach the sources.

    Attributes:
        gitlab: None where no GitLab is named.
    """

    hub: HubAccess
    gitlab: GitLabAccess | None = None


@dataclass(frozen=True)
class Part:
    """One file of a model at its source."""

    remote: RemoteFile
    wanted: Wanted


@dataclass(frozen=True)
class Model:
    """A model at its source.

    Attributes:
        name: what it is called here if the user does not say.
        source: as the user would write it.
        license: "" where nobody knows it without looking.
        entry: the catalogue's entry it is; None for any other.
        revision: of a copy, the commit that it was pulled from; "" where the source itself will say.
    """

    name: str
    source: str
    parts: tuple[Part, ...]
    license: str
    entry: Entry | None = None
    revision: str = ""

    @property
    def hub_file(self) -> HubFile | None:
        """Its first file, where it lies on the hub."""
        first = self.parts[0].remote
        return first if isinstance(first, HubFile) else None


def bundled_folder() -> Path:
    """The folder of the models that gpurig itself carries.

    Raises:
        PrerequisiteError: this installation has none.
    """
    return find_asset("gpurig.evaljobs", "models")


def locate(text: str, catalogue: Catalogue, access: Access) -> Model:
    """The model that the user named; nothing is asked over a network.

    Raises:
        InputError: it is no reference and in no catalogue, or a path at which there is no model.
    """
    reference = parse_reference(text)
    if isinstance(reference, str):
        entry = catalogue.find(reference)
        if entry is None:
            like = catalogue.like(reference)
            raise InputError(
                f'no catalogue has a model "{reference}"' + (f"; did you mean {' or '.join(like)}?" if like else ""),
                hint="`gpurig models list` shows the names; hf:REPO/FILE.gguf@REV names any file of the hub",
            )
        return _of_entry(entry, access)
    if isinstance(reference, PathReference):
        return _at_path(reference.path, catalogue)
    parts = tuple(Part(_remote(each, access), Wanted()) for each in _siblings(reference))
    return Model(model_name(reference.file), str(reference), parts, "")


def _of_entry(entry: Entry, access: Access) -> Model:
    if isinstance(entry.source, PathReference):
        paths = tuple(entry.source.path.with_name(file.file) for file in entry.files)
        remotes: tuple[RemoteFile, ...] = tuple(LocalFile(path) for path in paths)
    else:
        remotes = tuple(_remote(each, access) for each in _siblings(entry.source))
    parts = tuple(
        Part(remote, Wanted(file.sha256, file.size_bytes, "the catalogue says"))
        for remote, file in zip(remotes, entry.files, strict=True)
    )
    return Model(entry.name, str(entry.source), parts, entry.license, entry)


def _siblings(reference: Reference) -> tuple[Reference, ...]:
    """The references of all parts of a split model."""
    match reference:
        case HubReference(repository, file, revision):
            return tuple(HubReference(repository, each, revision) for each in part_files(file))
        case PackageReference(project, package, version, file):
            return tuple(PackageReference(project, package, version, each) for each in part_files(file))
        case BundledReference(file):
            return tuple(BundledReference(each) for each in part_files(file))
    raise TypeError(type(reference).__name__)


def _remote(reference: Reference, access: Access) -> RemoteFile:
    match reference:
        case HubReference():
            return HubFile(reference, access.hub)
        case PackageReference():
            if access.gitlab is None:
                raise InputError(
                    f"{reference} needs a GitLab to ask", hint="--url URL; in a job CI_SERVER_URL is read for it"
                )
            return PackageFile(reference, access.gitlab)
        case BundledReference(file):
            return LocalFile(bundled_folder() / file)
    raise TypeError(type(reference).__name__)


def _at_path(path: Path, catalogue: Catalogue) -> Model:
    first = _first_file(path)
    folder, name = first.parent, model_name(first.name)
    files = [folder / each for each in part_files(first.name)]
    for file in files:
        if not file.is_file():
            raise InputError(f"there is no file {file}", hint="check the path; a split model needs all of its parts")
    entry = catalogue.find(name) or catalogue.of_file(first.name)
    origin, sums = read_origin(folder, name), _sums(folder)
    parts = []
    for number, file in enumerate(files):
        pin = origin.pin(file.name) if origin else None
        if file.name in sums:
            wanted = Wanted(sums[file.name], None, f"{_SUMS} beside it says")
        elif pin is not None:
            wanted = Wanted(pin.sha256, pin.size_bytes, "the record beside it says")
        elif entry is not None and len(entry.files) == len(files):
            known = entry.files[number]
            wanted = Wanted(
                known.sha256,
                known.size_bytes,
                f"the catalogue says of {entry.name}",
                "if it is another model, give it another name with --as",
            )
        else:
            wanted = Wanted()
        parts.append(Part(LocalFile(file), wanted))
    license_ = origin.license if origin else ""
    source = origin.source if origin else str(first.absolute())
    return Model(
        entry.name if entry else name,
        source,
        tuple(parts),
        license_ or (entry.license if entry else ""),
        entry,
        origin.revision if origin else "",
    )


def _first_file(path: Path) -> Path:
    if not path.is_dir():
        part = part_of(path.name)
        return path.with_name(part_files(path.name)[0]) if part else path
    try:
        found = sorted(each for each in path.iterdir() if each.suffix == SUFFIX and not each.name.startswith("."))
    except OSError as error:
        raise read_problem(path, error) from error
    firsts = [each for each in found if (part_of(each.name) or ("", 1, 1))[1] == 1]
    if len(firsts) != 1:
        raise InputError(
            f"the folder {path} holds {len(firsts)} models, and one was expected", hint="give the path of a .gguf file"
        )
    return firsts[0]


def _sums(folder: Path) -> dict[str, str]:
    """The hashes of a SHA256SUMS file in `folder`, by file name, as sha256sum writes it."""
    path = folder / _SUMS
    if not path.is_file():
        return {}
    found = {}
    for line in read_text(path).splitlines():
        digest, _, name = line.strip().partition(" ")
        if len(digest) == 64:
            found[PurePosixPath(name.strip().removeprefix("*")).name] = digest.lower()
    return found
