"""Files that belong to a package: found beside its code when installed, at their place in the repository when not."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from gpurig.common.errors import PrerequisiteError


def find_asset(package: str, name: str) -> Path:
    """The path of an asset.

    A wheel carries `NAME` as `<package>/assets/NAME` (pyproject.toml, force-include); an editable install finds the
    same file at `<repository>/NAME`.

    Args:
        package: the package that owns it, for example "gpurig.images".
        name: its path from the repository's root, for example "Dockerfile.cpu".

    Raises:
        PrerequisiteError: it is in neither place.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        here = Path(folder)
        for candidate in (here / "assets" / name, here.parents[2] / name):
            if candidate.exists():
                return candidate
    raise PrerequisiteError(f"{name} is missing from this installation", hint="install gpurig again")
