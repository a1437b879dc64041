"""`gpurig images list`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpurig.common.terminal import size_text, table
from gpurig.runner.commands.images_options import box_images, engine_options

if TYPE_CHECKING:
    from gpurig.images.listing import ListedImage

# Raised when a key of --json changes its meaning or goes; new keys leave it as it is.
SCHEMA = 1


@click.command("list", epilog="Example: gpurig images list --json")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/images.md).")
@engine_options
def list_images(*, as_json: bool, name: str, root: Path, **options: Any) -> None:
    """Show gpurig's images on the engine.

    current: what this box would build now. other: of this version, for another
    box or from other sources. old: of another version of gpurig.
    """
    from gpurig.images.listing import list_images as look  # noqa: PLC0415 - heavy
    from gpurig.runner.exporter.image import plan_exporter_image  # noqa: PLC0415

    box = box_images(options, name=name, root=root)
    exporter = plan_exporter_image(base_image=box.exporter_base)
    found = look(box.engine().client, {*box.current_tags(), exporter.tag})
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "images": [_document(one) for one in found]}, indent=1))
    else:
        click.echo(_text(found))


def _document(one: ListedImage) -> dict[str, Any]:
    return {**asdict(one), "created": one.created.isoformat()}


def _text(found: tuple[ListedImage, ...]) -> str:
    if not found:
        return "the engine has no images of gpurig; gpurig images build makes one"
    rows = [
        (
            one.standing,
            " ".join((one.backend, *one.archs)).strip() or "metrics",
            one.target or "-",
            one.version,
            size_text(one.size_bytes),
            one.created.strftime("%Y-%m-%d"),
        )
        for one in found
    ]
    # The tag is what people copy: it gets a line of its own, whole.
    lines = table(("", "for", "target", "gpurig", "size", "made"), rows, width=76).splitlines()
    blocks = [lines[0]]
    for one, line in zip(found, lines[1:], strict=True):
        blocks.append(line)
        blocks += [f"    {name}" for name in (one.tag, *one.names)]
        if one.models:
            blocks.append(f"    models: {', '.join(one.models)}")
    return "\n".join(blocks)
