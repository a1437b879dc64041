"""Model files: from the name in a suite to a GGUF file whose header is sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.files import sha256_file
from gpurig.common.gguf import Gguf, read_gguf
from gpurig.evaljobs.records import ModelRef

# Where a job image and a box keep models (docs/suites.md).
STANDARD_FOLDERS = (Path("/models"), Path("/var/lib/gpurig/models"))
BUNDLED_FOLDER = Path(__file__).parent / "assets" / "models"


@dataclass(frozen=True)
class ModelFile:
    """A model that was found, hashed and whose header was read."""

    ref: ModelRef
    path: Path
    gguf: Gguf


def find_model(name: str, *, folders: Sequence[Path], suite_folder: Path) -> Path:
    """The file that a suite means by `name`.

    A path (it holds a slash or ends with .gguf) is relative to the suite's folder, then to the working directory.
    A name is `NAME.gguf` in one of `folders`, then among the bundled models.

    Raises:
        InputError: a path at which there is no file.
        PrerequisiteError: a name that no folder has: another runner may have it.
    """
    if "/" in name or name.endswith(".gguf"):
        candidates = [suite_folder / name, Path(name)]
        candidates += [folder / name for folder in folders if "/" not in name]
    else:
        candidates = [folder / f"{name}.gguf" for folder in (*folders, BUNDLED_FOLDER)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = ", ".join(dict.fromkeys(str(candidate) for candidate in candidates))
    if "/" in name or name.endswith(".gguf"):
        raise InputError(f'there is no model file "{name}"; looked at {looked}', hint="correct the path in the suite")
    raise PrerequisiteError(
        f'this machine has no model "{name}"; looked at {looked}',
        hint="put the file there, or name its folder with --models-dir",
    )


def open_model(name: str, *, folders: Sequence[Path], suite_folder: Path) -> ModelFile:
    """Find a model, hash it and read its header.

    Raises:
        InputError: there is no such file, or it is damaged. PrerequisiteError: this machine lacks it.
    """
    path = find_model(name, folders=folders, suite_folder=suite_folder)
    gguf = read_gguf(path)
    ref = ModelRef(name=name, file=path.name, sha256=sha256_file(path), size_bytes=gguf.size_bytes)
    return ModelFile(ref, path, gguf)
