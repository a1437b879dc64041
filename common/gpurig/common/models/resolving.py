"""Which file a model's name means: image layer, mounted volume, cache, or download, in that order (docs/models.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpurig.common.errors import ApplianceError, PrerequisiteError
from gpurig.common.files import sha256_file
from gpurig.common.models.names import find_in
from gpurig.common.models.origin import Origin, read_origin
from gpurig.common.models.sources import bundled_folder

PlaceKind = Literal["given", "image", "bundled", "volume", "box", "cache", "download", "path"]
# Where `gpurig images build --model` bakes models, where a box mounts its own for jobs, and where a box keeps them.
IMAGE_FOLDER = Path("/opt/gpurig/models")
VOLUME_FOLDER = Path("/models")
BOX_FOLDER = Path("/var/lib/gpurig/models")


@dataclass(frozen=True)
class Place:
    """A folder in which models are looked for."""

    kind: PlaceKind
    folder: Path


@dataclass(frozen=True)
class Found:
    """The files that a name means.

    Attributes:
        files: all parts, in order.
        origin: the record of the pull that brought it; None where there is none.
        others: the first files of models of the same name, in later places, that have other bytes.
    """

    name: str
    files: tuple[Path, ...]
    kind: PlaceKind
    origin: Origin | None = None
    others: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Search:
    """Where models are looked for.

    Attributes:
        places: in this order; the first that has the name wins.
        fetch: brings what no place has; None where the name is in no catalogue, or nothing may be fetched.
        without_fetch: why nothing is fetched, for the hint of an error; "" where it is.
        elsewhere: how to name another place, for that hint.
    """

    places: tuple[Place, ...]
    fetch: Callable[[str], Found | None] | None = None
    without_fetch: str = ""
    elsewhere: str = ", or name its folder with --models-dir"

    @classmethod
    def of_folders(cls, *folders: Path) -> Search:
        """In these folders only."""
        return cls(tuple(Place("given", folder) for folder in folders))

    def find(self, name: str) -> Found:
        """The files that `name` means.

        Raises:
            PrerequisiteError: no place has it, and it could not be fetched: another machine may have it. Whatever
                fetching raises.
        """
        found = find_model(name, self.places)
        if found is None and self.fetch is not None:
            found = self.fetch(name)
        if found is not None:
            return found
        looked = ", ".join(dict.fromkeys(str(place.folder) for place in self.places)) or "nowhere"
        nowhere = "" if self.fetch is None else ", and no catalogue has it"
        raise PrerequisiteError(
            f'this machine has no model "{name}"; looked in {looked}{nowhere}',
            hint=f"put the file there{self.elsewhere}{self.without_fetch}",
        )


def find_model(name: str, places: tuple[Place, ...]) -> Found | None:
    """The first of `places` that has the model `name`; the others are compared with it."""
    found: Found | None = None
    others = []
    for place in places:
        files = find_in(place.folder, name)
        if not files:
            continue
        if found is None:
            found = Found(name, files, place.kind, _origin(place.folder, name))
        elif not _same_bytes(found, files, _origin(place.folder, name)):
            others.append(files[0])
    return found and Found(found.name, found.files, found.kind, found.origin, tuple(others))


def _origin(folder: Path, name: str) -> Origin | None:
    try:
        return read_origin(folder, name)
    except ApplianceError:
        # A damaged record makes a file's origin unknown, and the file itself is none the worse.
        return None


def _same_bytes(found: Found, files: tuple[Path, ...], origin: Origin | None) -> bool:
    if len(found.files) != len(files):
        return False
    for mine, theirs in zip(found.files, files, strict=True):
        if mine.samefile(theirs):
            continue
        if mine.stat().st_size != theirs.stat().st_size:
            return False
        if _hash(mine, found.origin) != _hash(theirs, origin):
            return False
    return True


def _hash(path: Path, origin: Origin | None) -> str:
    """The file's hash; the one that its pull computed where the size is still that."""
    pinned = origin.pin(path.name) if origin else None
    if pinned is not None and pinned.size_bytes == path.stat().st_size:
        return pinned.sha256
    return sha256_file(path)


def cache_folder(environ: Mapping[str, str]) -> Path:
    """The user's own folder of models: GPURIG_MODELS_CACHE, else below XDG_CACHE_HOME, else below ~/.cache.

    A user without a home, as a container may have one, gets a folder that nobody can write to: that matters only to who
    needs it.
    """
    own = environ.get("GPURIG_MODELS_CACHE")
    if own:
        return Path(own)
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    # The specification wants a relative one ignored.
    return (base if base.is_absolute() else Path(environ.get("HOME") or "/") / ".cache") / "gpurig" / "models"


def standard_places(given: tuple[Path, ...], cache: Path) -> tuple[Place, ...]:
    """Where a job looks: the folders that the user named, then image layer, mounted volume, box, cache."""
    places = [Place("given", folder) for folder in given]
    places.append(Place("image", IMAGE_FOLDER))
    # An installation without them has none to offer.
    with contextlib.suppress(PrerequisiteError):
        places.append(Place("bundled", bundled_folder()))
    places += [Place("volume", VOLUME_FOLDER), Place("box", BOX_FOLDER), Place("cache", cache)]
    return tuple(places)
