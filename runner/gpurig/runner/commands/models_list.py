"""`gpurig models list`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpurig.common.terminal import harmless, size_text, table
from gpurig.provisioning.paths import Paths
from gpurig.runner.commands.instance import instance_options
from gpurig.runner.commands.models_options import catalogue_files, catalogue_option, folder_option

if TYPE_CHECKING:
    from gpurig.runner.models_here import Fit, Here, ModelsHere, Offer

# Raised when a key of --json changes its meaning or goes; new keys leave it as it is.
SCHEMA = 1
_WIDTH = 80
# Short, so that a name, which people copy, is never cut.
_ROLES = {"generator": "gen", "grader": "grade", "embedding": "embed"}


@click.command("list", epilog="Example: gpurig models list --json")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/models.md).")
@click.option("--verify", is_flag=True, help="Read every file and hold it against what was pulled.")
@folder_option("The models of this folder only.")
@catalogue_option
@instance_options
def list_models(
    *, as_json: bool, verify: bool, folder: Path | None, catalogues: tuple[Path, ...], name: str, root: Path
) -> None:
    """Show the models that are here, and what a pull brings.

    Whether one fits is forecast from its header, with a context of 4096
    tokens, for the largest card; without a GPU, for this machine's memory.
    """
    from gpurig.common.errors import PrerequisiteError  # noqa: PLC0415 - not needed for --help
    from gpurig.common.models.catalogue import load_catalogue  # noqa: PLC0415
    from gpurig.common.models.resolving import cache_folder  # noqa: PLC0415
    from gpurig.common.models.sources import bundled_folder  # noqa: PLC0415
    from gpurig.provisioning.detect import detect  # noqa: PLC0415
    from gpurig.runner.models_here import list_places, look  # noqa: PLC0415

    paths = Paths(root, name)
    try:
        bundled = bundled_folder()
    except PrerequisiteError:
        bundled = None
    places = list_places(folder, paths.models, cache_folder(os.environ), bundled)
    seen = look(places, load_catalogue(catalogue_files(catalogues, paths)), detect(), verify=verify)
    click.echo(json.dumps(_document(seen), indent=2) if as_json else _text(seen))


def _document(seen: ModelsHere) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "memory": {
            "label": seen.memory.label,
            "usable_bytes": seen.memory.usable_bytes,
            "vram_class_gb": seen.memory.class_gb,
        },
        "folders": [
            {"place": place.kind, "folder": str(place.folder), "problem": seen.problems.get(place.folder, "")}
            for place in seen.places
        ],
        "installed": [_here_document(found) for found in seen.here],
        "catalogue": [_offer_document(offer) for offer in seen.offers],
    }


def _here_document(found: Here) -> dict[str, Any]:
    model, origin = found.model, found.model.origin
    return {
        "name": model.name,
        "place": found.place.kind,
        "files": [str(file) for file in model.files],
        "size_bytes": model.size_bytes,
        "quantization": model.quantization,
        "context": model.context,
        "license": found.license,
        "sha256": [pin.sha256 for pin in origin.files] if origin else [found.sha256] if found.sha256 else [],
        "source": origin.source if origin else "",
        "revision": origin.revision if origin else "",
        "problem": model.problem,
        **_fit_document(found.fit),
    }


def _offer_document(offer: Offer) -> dict[str, Any]:
    entry = offer.entry
    return {
        "name": entry.name,
        "about": entry.about,
        "source": str(entry.source),
        "size_bytes": entry.size_bytes,
        "sha256": [file.sha256 for file in entry.files],
        "unknown": list(entry.unknown),
        "license": entry.license,
        "context": entry.context,
        "chat_template": entry.chat_template,
        "roles": list(entry.roles),
        "vram_gb": entry.vram_gb,
        "catalogue": entry.place,
        "installed": offer.installed,
        **_fit_document(offer.fit),
    }


def _fit_document(fit: Fit) -> dict[str, Any]:
    return {"fits": fit.fits, "fits_by": fit.how, "needed_bytes": fit.needed_bytes}


def _text(seen: ModelsHere) -> str:
    memory = seen.memory
    size = "unknown" if memory.usable_bytes is None else size_text(memory.usable_bytes)
    blocks = [harmless(f"{memory.label}, {size} usable")]
    for place in seen.places:
        found = [here for here in seen.here if here.place == place]
        problem = seen.problems.get(place.folder)
        title = f"{place.folder} ({place.kind})"
        blocks.append(harmless(f"{title}: {problem}") if problem else _folder_text(title, found))
    blocks.append("A pull brings:\n" + _offers_text(seen))
    blocks.append(
        click.wrap_text(
            "fits: with a context of 4096 tokens; of models that are here forecast from the header (~: by size and 1 "
            "GiB), of the others by the VRAM class that the catalogue names, without a GPU by size and 1 GiB.",
            width=_WIDTH,
        )
    )
    return "\n\n".join(blocks)


def _folder_text(title: str, found: list[Here]) -> str:
    if not found:
        return f"{harmless(title)}: no models"
    rows = [
        (
            here.model.name,
            size_text(here.model.size_bytes),
            here.model.quantization or "-",
            str(here.model.context or "-"),
            _fit_word(here.fit),
            here.license or "-",
            (here.sha256 or "-")[:8],
        )
        for here in found
    ]
    lines = [harmless(title), table(("model", "size", "quant", "context", "fits", "license", "sha256"), rows)]
    for here in found:
        if here.model.origin and here.model.origin.source != "bundled":
            lines.append(_cut(f"  {here.model.name}: from {here.model.origin.source}"))
        if here.model.problem:
            lines.append(_cut(f"  {here.model.name}: {here.model.problem}"))
    return "\n".join(lines)


def _offers_text(seen: ModelsHere) -> str:
    rows = [
        (
            offer.entry.name,
            size_text(offer.entry.size_bytes) if offer.entry.size_bytes else "?",
            "+".join(_ROLES[role] for role in offer.entry.roles),
            f"{offer.entry.vram_gb} GB" if offer.entry.vram_gb else "-",
            "here" if offer.installed else _fit_word(offer.fit),
            offer.entry.license,
        )
        for offer in seen.offers
    ]
    return table(("model", "size", "for", "VRAM", "fits", "license"), rows)


def _fit_word(fit: Fit) -> str:
    word = {True: "yes", False: "no", None: "?"}[fit.fits]
    return f"~{word}" if fit.how == "size" and fit.fits is not None else word


def _cut(line: str) -> str:
    shown = harmless(line)
    return shown if len(shown) <= _WIDTH else shown[: _WIDTH - 1] + "…"
