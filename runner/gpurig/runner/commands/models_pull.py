"""`gpurig models pull`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpurig.common.terminal import harmless, size_text
from gpurig.provisioning.paths import Paths
from gpurig.runner.commands.instance import instance_options
from gpurig.runner.commands.models_options import (
    catalogue_files,
    catalogue_option,
    folder_option,
    gitlab_options,
    models_folder,
    source_access,
)

if TYPE_CHECKING:
    from gpurig.common.models.pulling import Pulled

# Raised when a key of --json changes its meaning or goes; new keys leave it as it is.
SCHEMA = 1


@click.command(
    epilog="\b\nExamples:\n  gpurig models pull qwen2.5-coder-7b-q4_k_m\n"
    "  gpurig models pull hf:Qwen/Qwen3-4B-GGUF/Qwen3-4B-Q4_K_M.gguf\n"
    "  gpurig models pull gitlab:group/project/models/1.0/m.gguf --url URL\n"
    "  gpurig models pull /media/usb/model.gguf"
)
@click.argument("model", metavar="MODEL")
@folder_option("Where to; the box's models folder if absent, the user's cache if that cannot be written.")
@click.option("--as", "as_name", metavar="NAME", help="What it is called here; its own name if absent.")
@click.option("--sha256", metavar="HASH", help="What the file must hash to.")
@click.option(
    "--allow-license",
    "licenses",
    multiple=True,
    metavar="NAME",
    help="Accept a license with conditions; may be repeated.",
)
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["eval", "finetune"]),
    default="eval",
    show_default=True,
    help="finetune: also what the license says of training on outputs.",
)
@click.option("--repin", is_flag=True, help="Take other bytes than an earlier pull pinned.")
@catalogue_option
@gitlab_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/models.md).")
@instance_options
def pull(
    *,
    model: str,
    folder: Path | None,
    as_name: str | None,
    sha256: str | None,
    licenses: tuple[str, ...],
    purpose: str,
    repin: bool,
    catalogues: tuple[Path, ...],
    url: str | None,
    token_file: Path | None,
    tls_ca_file: Path | None,
    as_json: bool,
    name: str,
    root: Path,
) -> None:
    """Fetch a model, verified; run again, it goes on where it broke off.

    MODEL is a name of the catalogue, hf:REPO/FILE.gguf@REVISION,
    gitlab:PROJECT/PACKAGE/VERSION/FILE.gguf, or the path of a file or folder.
    HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE and proxy variables are honoured.
    """
    from gpurig.common.models.catalogue import load_catalogue  # noqa: PLC0415 - not needed for --help
    from gpurig.common.models.pulling import PullOptions  # noqa: PLC0415
    from gpurig.common.models.pulling import pull as run  # noqa: PLC0415
    from gpurig.common.models.sources import locate  # noqa: PLC0415
    from gpurig.common.models.transfer import Tools  # noqa: PLC0415

    paths = Paths(root, name)
    access = source_access(os.environ, url=url, token_file=token_file, tls_ca_file=tls_ca_file)
    wanted = locate(model, load_catalogue(catalogue_files(catalogues, paths)), access)
    options = PullOptions(
        name=as_name,
        sha256=sha256,
        repin=repin,
        allowed_licenses=licenses,
        purpose="finetune" if purpose == "finetune" else "eval",
    )
    tools = Tools(say=lambda line: click.echo(f"gpurig: {harmless(line)}", err=True))
    done = run(wanted, models_folder(folder, paths), options, tools)
    click.echo(json.dumps(_document(done), indent=2) if as_json else _text(done))


def _document(done: Pulled) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "name": done.name,
        "files": [
            {"file": str(file.path), "sha256": file.sha256, "size_bytes": file.size_bytes} for file in done.files
        ],
        "source": done.origin.source,
        "revision": done.origin.revision,
        "license": done.origin.license,
        "fetched_bytes": done.fetched,
        "pinned_now": done.first_use,
        "notes": list(done.notes),
    }


def _text(done: Pulled) -> str:
    size = sum(file.size_bytes for file in done.files)
    what = f"{size_text(done.fetched)} fetched" if done.fetched else "it was there already"
    lines = [f"{done.name}: {size_text(size)}, {what}"]
    for file in done.files:
        lines += [f"  {file.path}", f"  sha256 {file.sha256}"]
    if done.first_use:
        lines.append("  nobody knew this hash beforehand: it is pinned from now on")
    revision = done.origin.revision
    lines.append(f"  from {done.origin.source}")
    if revision and revision not in done.origin.source:
        lines.append(f"  revision {revision}")
    lines.append(f"  license {done.origin.license or 'unknown'}")
    lines += [f"  note: {note}" for note in done.notes]
    return "\n".join(harmless(line) for line in lines)
