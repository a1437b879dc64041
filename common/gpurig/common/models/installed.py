"""What lies in a folder of models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from gpurig.common.errors import ApplianceError
from gpurig.common.files import read_problem, sha256_file
from gpurig.common.gguf import Gguf, read_gguf
from gpurig.common.gguf_file_types import quantization, trained_context
from gpurig.common.models.names import SUFFIX, find_in, model_name
from gpurig.common.models.origin import Origin, read_origin


@dataclass(frozen=True)
class InstalledModel:
    """A model in a folder.

    Attributes:
        name: what a suite calls it: the file's name without `.gguf`.
        files: all parts, in order.
        size_bytes: of all of them.
        gguf: the header, of a split model with the tensors of all parts; None where it cannot be used.
        origin: the record of the pull that brought it; None where there is none.
        problem: why it cannot be used, or is not what its record says; empty where all is well.
    """

    name: str
    files: tuple[Path, ...]
    size_bytes: int
    gguf: Gguf | None = None
    origin: Origin | None = None
    problem: str = ""

    @property
    def quantization(self) -> str | None:
        """For example "Q4_K_M"; None where the file does not say."""
        return quantization(self.gguf) if self.gguf else None

    @property
    def context(self) -> int | None:
        """Tokens it was made for; None where the file does not say."""
        return trained_context(self.gguf) if self.gguf else None

    @property
    def license(self) -> str:
        """As its record or its header says; "" where neither does."""
        said = self.gguf.metadata.get("general.license") if self.gguf else None
        return (self.origin.license if self.origin else "") or (said if isinstance(said, str) else "")

    @property
    def sha256(self) -> str | None:
        """Of its one file, as its pull computed it; None for a split model, and where no pull brought it."""
        pin = self.origin.pin(self.files[0].name) if self.origin and len(self.files) == 1 else None
        return pin.sha256 if pin else None


def installed_models(folder: Path, *, verify: bool = False) -> tuple[InstalledModel, ...]:
    """The models in `folder`, by name; none where there is no such folder.

    Args:
        folder: where to look.
        verify: read every file and hold it against its record.

    Raises:
        PrerequisiteError: the folder may not be read. InputError: it is no folder.
    """
    try:
        paths = [path for path in folder.iterdir() if path.suffix == SUFFIX and not path.name.startswith(".")]
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise read_problem(folder, error) from error
    names = dict.fromkeys(model_name(path.name) for path in sorted(paths))
    return tuple(_look(folder, name, paths, verify=verify) for name in names)


def _look(folder: Path, name: str, paths: list[Path], *, verify: bool) -> InstalledModel:
    files = find_in(folder, name)
    whole = bool(files)
    files = files or tuple(sorted(path for path in paths if model_name(path.name) == name))
    found = InstalledModel(name, files, 0)
    try:
        found = replace(found, size_bytes=sum(file.stat().st_size for file in files))
        if not whole:
            return replace(found, problem="a part of it is missing")
        headers = [read_gguf(file) for file in files]
        tensors = tuple(tensor for header in headers for tensor in header.tensors)
        found = replace(found, gguf=replace(headers[0], tensors=tensors), origin=read_origin(folder, name))
        return replace(found, problem=_differs(found, verify=verify))
    except ApplianceError as error:
        return replace(found, problem=error.message)
    except OSError as error:
        return replace(found, problem=error.strerror or type(error).__name__)


def _differs(model: InstalledModel, *, verify: bool) -> str:
    """How a model's files differ from its record; empty where they do not, or where there is none."""
    if model.origin is None:
        return ""
    for file in model.files:
        pin = model.origin.pin(file.name)
        if pin is None or pin.size_bytes != file.stat().st_size:
            return "it is not the file that was pulled (another size)"
        if verify and sha256_file(file) != pin.sha256:
            return "it is not the file that was pulled (another sha256)"
    return ""
