"""The header of a model, wherever it is: on this machine, in the catalogue, on the hub, at an address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpurig.common.gguf import Gguf, read_gguf
from gpurig.common.models.address import AddressFile, is_address
from gpurig.common.models.catalogue import load_catalogue
from gpurig.common.models.header import joined, read_remote_header
from gpurig.common.models.names import model_name, part_files
from gpurig.common.models.reference import parse_reference
from gpurig.common.models.remote import LocalFile, RemoteFile
from gpurig.common.models.resolving import Place, cache_folder, find_model
from gpurig.common.models.sources import bundled_folder, locate
from gpurig.common.retrying import Patience, retrying
from gpurig.common.waiting import SystemClock
from gpurig.provisioning.paths import Paths
from gpurig.runner.commands.models_options import catalogue_files, source_access

# A person waits for the answer.
_PATIENCE = Patience(attempts=3, first_s=1.0, longest_s=5.0, longest_asked_s=10.0)


@dataclass(frozen=True)
class Found:
    """A model's header.

    Attributes:
        name: for a person.
        gguf: of a split model with the tensors of all parts.
        path: of its first file; None where it is not on this machine.
    """

    name: str
    gguf: Gguf
    path: Path | None


def find_header(model: str, *, paths: Paths, environ: Mapping[str, str], catalogues: tuple[Path, ...] = ()) -> Found:
    """The header of the model that the user named: a model of this box before one of the catalogue.

    Raises:
        InputError: there is no such model, or it is damaged. RemoteError: its source does not answer.
    """
    if is_address(model):
        first = AddressFile(model)
        files = [first.sibling(file) for file in part_files(first.file)] if part_files(first.file)[1:] else [first]
        return _read(model_name(first.file), files)
    if isinstance(parse_reference(model), str):
        places = (Place("box", paths.models), Place("cache", cache_folder(environ)), Place("bundled", bundled_folder()))
        here = find_model(model, places)
        if here is not None:
            return _read(here.name, [LocalFile(file) for file in here.files])
    access = source_access(environ, url=None, token_file=None, tls_ca_file=None)
    wanted = locate(model, load_catalogue(catalogue_files(catalogues, paths)), access)
    return _read(wanted.name, [part.remote for part in wanted.parts])


def _read(name: str, files: list[RemoteFile] | list[AddressFile] | list[LocalFile]) -> Found:
    parts = [_header(file) for file in files]
    first = files[0]
    return Found(name, joined(parts), first.path if isinstance(first, LocalFile) else None)


def _header(file: RemoteFile) -> Gguf:
    if isinstance(file, LocalFile):
        return read_gguf(file.path)
    return retrying(lambda: read_remote_header(file), patience=_PATIENCE, clock=SystemClock(), say=lambda _: None)
