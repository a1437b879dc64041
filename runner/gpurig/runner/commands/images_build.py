"""`gpurig images build`."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpurig.common.errors import ApplianceError, InputError
from gpurig.common.terminal import harmless, shorten, size_text
from gpurig.runner.commands.images_options import box_images, engine_options, transport_options, which_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpurig.images.build import BuiltImage
    from gpurig.images.builders import Builder, BuilderName
    from gpurig.images.job_spec import JobImageSpec
    from gpurig.images.plan import ImagePlan
    from gpurig.provisioning.docker_engine import DockerEngine
    from gpurig.runner.box_images import BoxImages

# Raised when a key of --json changes its meaning or goes; new keys leave it as it is.
SCHEMA = 1
_WIDTH = 80


@click.command(
    epilog="\b\nExamples:\n  gpurig images build\n  gpurig images build --backend cuda --arch 89,75\n"
    "  gpurig images build --for saas --dry-run\n"
    "  gpurig images build --for saas --model qwen3-8b-q4_k_m\n"
    "  gpurig images build --pip-index-url https://pypi.example/simple --netrc ~/.netrc"
)
@which_options
@transport_options
@click.option(
    "--builder",
    "wanted",
    type=click.Choice(["auto", "buildkit", "classic"]),
    default="auto",
    help="auto: BuildKit where engine and CLI have it. [auto]",
)
@click.option("--model", "models", metavar="NAME", multiple=True, help="Bake a model of this box in; may be repeated.")
@click.option(
    "--allow-license",
    "licenses",
    metavar="LICENSE",
    multiple=True,
    help="Accept a license with conditions: who gets the image gets the model.",
)
@click.option(
    "--log", type=click.Path(path_type=Path, dir_okay=False), help="Where the whole output goes. [a new file]"
)
@click.option("--dry-run", is_flag=True, help="Show what would be built and touch nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/images.md).")
@click.option("--verbose", "-v", is_flag=True, help="Show the builder's output.")
@engine_options
def build(
    *,
    wanted: BuilderName,
    models: tuple[str, ...],
    licenses: tuple[str, ...],
    log: Path | None,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
    name: str,
    root: Path,
    **options: Any,
) -> None:
    """Build the job image for this box, or for another one.

    Without options it is the image that `gpurig up` uses: for the cards that
    are here. No GPU is needed to build for cards that are named. An image that
    the engine has is not built again. With --model it carries models too, for
    runners that have no folder of them: one layer upon the image, which keeps
    its name and gets a second one.
    """
    from gpurig.images.builders import chooser  # noqa: PLC0415 - heavy
    from gpurig.provisioning.paths import Paths  # noqa: PLC0415
    from gpurig.runner.baking import bake, baking_document, models_to_bake  # noqa: PLC0415

    if re.match(r"[^/]*//[^/]*@", options["pip_index_url"] or ""):
        raise InputError(
            "--pip-index-url: a password on the command line shows in every list of processes",
            hint="leave user and password out and write them into a file: --netrc FILE",
        )
    box = box_images(options, name=name, root=root)
    if box.unread:
        click.echo(f"gpurig: the settings of `gpurig up` do not count: {harmless(box.unread)}", err=True)
    plans = [(spec, box.plan(spec)) for spec in box.specs()]
    layer = models_to_bake(models, licenses, Paths(root.absolute(), name)) if models else None
    if dry_run:
        documents = [
            {**_plan_document(spec, plan), "present": _present(box, plan), **baking_document(plan.tag, layer)}
            for spec, plan in plans
        ]
        click.echo(json.dumps({"schema": SCHEMA, "images": documents}, indent=1) if as_json else _plans_text(documents))
        return
    engine = box.engine()
    choose = chooser(engine.client, wanted)
    documents = []
    for number, (spec, plan) in enumerate(plans):
        path = log.with_name(f"{log.stem}-{number}{log.suffix}") if log and number else log
        documents.append(_build(engine, spec, plan, choose=choose, log=path, verbose=verbose))
        if not as_json:
            click.echo(_built_text(documents[-1]))
        if layer is not None:
            documents.append(bake(engine, documents[-1], layer))
            if not as_json:
                click.echo(_built_text(documents[-1]))
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "images": documents}, indent=1))


def _build(
    engine: DockerEngine,
    spec: JobImageSpec,
    plan: ImagePlan,
    *,
    choose: Callable[[ImagePlan], Builder],
    log: Path | None,
    verbose: bool,
) -> dict[str, Any]:
    from gpurig.common.live import LiveLines  # noqa: PLC0415
    from gpurig.images.build import ensure_image  # noqa: PLC0415
    from gpurig.images.build_progress import BuildProgress  # noqa: PLC0415

    used: dict[str, str] = {"builder": "", "log": ""}

    def begin(builder: Builder, path: Path) -> None:
        used.update(builder=builder.name, log=str(path))
        click.echo(f"building {plan.tag} ({builder.name}); log: {path}", err=True)

    progress = BuildProgress()
    started = time.monotonic()
    with LiveLines(progress.now) as lines:
        had = ensure_image(
            engine.client,
            plan,
            choose=choose,
            log=log.absolute() if log else None,
            keep_log=True,
            on_start=begin,
            **({"on_line": lines.say} if verbose else {"on_event": lambda event: progress.take(event, lines)}),
        )
    return {**_built_document(engine, spec, had), "seconds": round(time.monotonic() - started, 1), **used}


def _built_document(engine: DockerEngine, spec: JobImageSpec, had: BuiltImage) -> dict[str, Any]:
    from gpurig.provisioning.engine import translated  # noqa: PLC0415

    with translated("looking at the image"):
        size = int(engine.client.images.get(had.id).attrs.get("Size", 0))
    return {"tag": had.tag, "id": had.id, "size_bytes": size, "built": had.built, **_spec_document(spec)}


def _spec_document(spec: JobImageSpec) -> dict[str, Any]:
    return {
        "backend": spec.backend,
        "target": spec.target,
        "archs": list(spec.arch_names),
        "cuda_major": spec.cuda_major,
        "driver": spec.driver,
        "cpu_target": spec.cpu_target,
    }


def _plan_document(spec: JobImageSpec, plan: ImagePlan) -> dict[str, Any]:
    from gpurig.images.job_image import toolkit_in_words  # noqa: PLC0415 - heavy

    return {
        "tag": plan.tag,
        **_spec_document(spec),
        "toolkit": toolkit_in_words(spec, plan.build_args.get("TOOLKIT_IMAGE", "")),
        "dockerfile": plan.dockerfile,
        "context_bytes": len(plan.context),
        "build_args": dict(plan.build_args),
        # Never their values.
        "secrets": sorted(plan.secrets),
        "private_args": sorted(plan.private_args),
    }


def _present(box: BoxImages, plan: ImagePlan) -> bool | None:
    """Whether the engine has it; None where no engine answers, which a plan does not need."""
    try:
        return box.engine().image_id(plan.tag) is not None
    except ApplianceError:
        return None


def _plans_text(documents: list[dict[str, Any]]) -> str:
    return "\n\n".join(_plan_text(document) for document in documents)


def _plan_text(document: dict[str, Any]) -> str:
    rows = [
        ("here", {True: "yes: nothing to build", False: "no", None: "no engine answers"}[document["present"]]),
        ("for", ", ".join([document["backend"], *document["archs"]])),
        ("target", document["target"]),
        ("driver", f"{document['driver']} or newer, CUDA {document['cuda_major']}" if document["driver"] else ""),
        ("toolkit", document["toolkit"]),
        ("Dockerfile", f"{document['dockerfile']}, context {size_text(document['context_bytes'])}"),
        *((f"arg {name}", value) for name, value in sorted(document["build_args"].items())),
        ("secrets", ", ".join([*document["secrets"], *document["private_args"]])),
        ("with models", document.get("baked_tag", "")),
        ("models", ", ".join(document.get("models", {}))),
    ]
    return "\n".join(
        [
            document["tag"],
            *(shorten(harmless(f"  {title:<16} {value}".rstrip()), _WIDTH) for title, value in rows if value),
        ]
    )


def _built_text(document: dict[str, Any]) -> str:
    how = f"built in {document['seconds']:.1f} s" if document["built"] else "was there"
    return f"{document['tag']}: {how}, {size_text(document['size_bytes'])}"
