"""`gpurig images push`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpurig.common.errors import InputError
from gpurig.common.files import read_text
from gpurig.common.terminal import size_text
from gpurig.runner.commands.images_options import box_images, engine_options, which_options

if TYPE_CHECKING:
    from gpurig.images.push import Layer, Pushed

# Raised when a key of --json changes its meaning or goes; new keys leave it as it is.
SCHEMA = 1


@click.command(
    epilog="\b\nExamples:\n  gpurig images push --to registry.example.com/group/project --token-file token\n"
    "  gpurig images push        (in a CI job: to the project's own registry)"
)
@click.argument("image", required=False)
@click.option("--to", "to", metavar="REGISTRY/PATH", default="", help="Where to. [CI_REGISTRY_IMAGE]")
@click.option("--username", default="", help="Who logs in, beside --token-file. [any, as GitLab's tokens allow]")
@click.option("--token-file", metavar="FILE", help="The token or password; - for standard input.")
@which_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/images.md).")
@engine_options
def push(
    *,
    image: str | None,
    to: str,
    username: str,
    token_file: str | None,
    as_json: bool,
    name: str,
    root: Path,
    **options: Any,
) -> None:
    """Push a job image to a container registry.

    IMAGE is a name of `gpurig images list`; the one that this box, or the
    options, mean if absent. It gets the name of its content, which never
    changes, and `latest`, which moves. Layers that the registry has are not
    sent. In a CI job it logs in by CI_REGISTRY_USER and CI_REGISTRY_PASSWORD.
    """
    from gpurig.images.registry import find_login, find_place  # noqa: PLC0415 - not needed for --help

    place = find_place(to, os.environ)
    token = None
    if token_file is not None:
        token = sys.stdin.read() if token_file == "-" else read_text(Path(token_file))  # noqa: S105 - a file's name
    login = find_login(place.host, username=username, token=token, environment=os.environ)
    box = box_images(options, name=name, root=root)
    tags = [image] if image else [box.plan(spec).tag for spec in box.specs()]
    client = box.engine().client
    documents = []
    for tag in tags:
        if ":" not in tag.rpartition("/")[2]:
            raise InputError(f"{tag!r} has no tag", hint="name it as gpurig images list does: gpurig-job-cpu:0123…")
        documents.append(_document(tag, _push(client, tag, place, login)))
        if not as_json:
            click.echo(_text(documents[-1]))
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "images": documents}, indent=1))


def _push(client: Any, tag: str, place: Any, login: Any) -> Pushed:
    from gpurig.common.live import LiveLines  # noqa: PLC0415
    from gpurig.images.push import push_image  # noqa: PLC0415

    layers: dict[str, Layer] = {}

    def now() -> str:
        under_way = [one for one in list(layers.values()) if one.state in {"sending", "retrying"}]
        if not under_way:
            return ""
        sent, total = (
            sum(values) for values in zip(*((one.sent_bytes, one.total_bytes) for one in under_way), strict=True)
        )
        again = ", trying again" if any(one.state == "retrying" for one in under_way) else ""
        return f"{len(under_way)} layer(s): {size_text(sent)} of {size_text(total)}{again}"

    with LiveLines(now) as lines:

        def show(layer: Layer) -> None:
            before = layers.get(layer.id)
            layers[layer.id] = layer
            if before and before.state == layer.state:
                return
            if layer.state == "sent":
                lines.say(f"layer {layer.id}: sent, {size_text(layer.total_bytes)}")
            elif layer.state == "present":
                lines.say(f"layer {layer.id}: there already")
            else:
                lines.refresh()

        return push_image(client, tag, place, login=login, on_layer=show)


def _document(tag: str, pushed: Pushed) -> dict[str, Any]:
    sent = [layer for layer in pushed.layers if layer.state == "sent"]
    return {
        "tag": tag,
        "names": list(pushed.names),
        "digest": pushed.digest,
        "layers": len(pushed.layers),
        "layers_sent": len(sent),
        # Before compression: the engine tells no other size.
        "sent_bytes": sum(layer.total_bytes for layer in sent),
    }


def _text(document: dict[str, Any]) -> str:
    sent = f"{document['layers_sent']} of {document['layers']} layers sent"
    return "\n".join([*(f"pushed {name}" for name in document["names"]), f"  {document['digest']}, {sent}"])
