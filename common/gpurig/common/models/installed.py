"""What lies in a folder of models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gpurig.common.errors import ApplianceError
from gpurig.common.files import read_problem
from gpurig.common.gguf import read_gguf
from gpurig.common.gguf_file_types import quantization, trained_context


@dataclass(frozen=True)
class InstalledModel:
    """A GGUF file in a folder of models.

    Attributes:
        name: what a suite calls it: the file's name without `.gguf`.
        size_bytes: of the whole file.
        quantization: for example "Q4_K_M"; None where the file does not say.
        context: tokens it was made for; None where the file does not say.
        problem: why it cannot be used; empty where it can.
    """

    name: str
    path: Path
    size_bytes: int
    quantization: str | None = None
    context: int | None = None
    problem: str = ""


def installed_models(folder: Path) -> tuple[InstalledModel, ...]:
    """The models in `folder`, by name; none where there is no such folder. Files are not hashed.

    Raises:
        PrerequisiteError: the folder may not be read. InputError: it is no folder.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".gguf" and not path.name.startswith("."))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise read_problem(folder, error) from error
    return tuple(_look(path) for path in paths)


def _look(path: Path) -> InstalledModel:
    try:
        size = path.stat().st_size
    except OSError as error:
        return InstalledModel(path.stem, path, 0, problem=error.strerror or type(error).__name__)
    try:
        gguf = read_gguf(path)
    except ApplianceError as error:
        return InstalledModel(path.stem, path, size, problem=error.message)
    return InstalledModel(path.stem, path, size, quantization(gguf), trained_context(gguf))
