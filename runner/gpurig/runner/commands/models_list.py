"""`gpurig models list`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gpurig.common.models.installed import InstalledModel, installed_models
from gpurig.common.terminal import harmless, table
from gpurig.provisioning.paths import Paths
from gpurig.runner.commands.instance import instance_options

# Raised when a key of --json changes its meaning or goes; new keys leave it as it is.
SCHEMA = 1
_MIB = 2**20


@click.command("list", epilog="Example: gpurig models list --json")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/models.md).")
@instance_options
def list_models(*, as_json: bool, name: str, root: Path) -> None:
    """Show the models that are here, and what a pull brings."""
    folder = Paths(root, name).models
    found = installed_models(folder)
    click.echo(json.dumps(_document(folder, found), indent=2) if as_json else _text(folder, found))


def _document(folder: Path, found: tuple[InstalledModel, ...]) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "folder": str(folder),
        "installed": [
            {
                "name": model.name,
                "file": str(model.path),
                "size_bytes": model.size_bytes,
                "quantization": model.quantization,
                "context": model.context,
                "problem": model.problem,
            }
            for model in found
        ],
    }


def _text(folder: Path, found: tuple[InstalledModel, ...]) -> str:
    if not found:
        return f"no models in {harmless(str(folder))}"
    rows = [
        (
            model.name,
            f"{model.size_bytes / _MIB:.1f}",
            model.quantization or "-",
            str(model.context or "-"),
            model.problem or "-",
        )
        for model in found
    ]
    return f"{harmless(str(folder))}\n\n" + table(("model", "MiB", "quant", "context", "problem"), rows)
