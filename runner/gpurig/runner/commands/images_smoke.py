"""`gpurig images smoke`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from gpurig.common.terminal import size_text, table
from gpurig.runner.commands.images_options import box_images, engine_options

# Raised when a key of --json changes its meaning or goes; new keys leave it as it is.
SCHEMA = 1


@click.command(
    epilog="\b\nExamples:\n  gpurig images smoke\n  gpurig images smoke gpurig-job-cuda13-sm89:0123456789abcdef"
)
@click.argument("image", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/images.md).")
@engine_options
def smoke(*, image: str | None, as_json: bool, name: str, root: Path, **options: Any) -> None:
    """Run an image as a job would and ask which devices it sees.

    IMAGE is a name of `gpurig images list`; this box's own if absent. It runs
    once for each GPU of its backend, wired as config.toml wires a job. An
    image for a GPU that sees none ends with exit code 4, and says what of
    driver and card was found and what is needed.
    """
    from gpurig.runner.smoke import smoke_image  # noqa: PLC0415 - heavy

    box = box_images(options, name=name, root=root)
    tags = [image] if image else [box.plan(spec).tag for spec in box.specs()]
    documents = [one for tag in tags for one in smoke_image(box, tag)]
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "runs": documents}, indent=1))
    else:
        click.echo("\n\n".join(_text(document) for document in documents))


def _text(document: dict[str, Any]) -> str:
    devices = document["devices"]
    rows = [
        (one["name"], one["kind"], one["description"], size_text(one["total_bytes"]), size_text(one["free_bytes"]))
        for one in devices
    ]
    generated = document["generated"]
    said = f", {generated['tokens']} tokens in {generated['seconds']:.2f} s" if generated else ""
    return "\n".join(
        [
            f"{document['image']}: {document['backend']} works{said}",
            table(("device", "kind", "name", "memory", "free"), rows),
        ]
    )
