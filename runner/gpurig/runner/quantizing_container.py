"""Quantizing in the job image's container: what a CI job would do, on this box's files."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.files import make_directory
from gpurig.common.models.quantize_options import BUILT_IN, QuantizeOptions
from gpurig.provisioning.container_spec import ContainerSpec, Mount
from gpurig.provisioning.containers import Engine
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.plan import job_container
from gpurig.provisioning.wiring import Wiring, wire
from gpurig.runner.quantizing import job_words

# Where the container has its own files, a mount would hide them.
_ITS_OWN = ("/bin", "/dev", "/etc", "/lib", "/lib64", "/opt/gpurig", "/proc", "/sbin", "/sys", "/usr")


def quantize_in_container(source: Path, out: Path, options: QuantizeOptions, paths: Paths) -> int:
    """Run the job's program in this box's job image, wired as a job is; its exit code.

    Raises:
        InputError: a folder that the container cannot have. PrerequisiteError: no engine, no job image, a GPU that
            cannot be used.
    """
    from gpurig.runner.box_images import BoxImages  # noqa: PLC0415 - heavy

    box = BoxImages({}, name=paths.name, root=paths.root)
    # The first one is the GPU's, where there is one.
    chosen = box.specs()[0]
    tag = box.plan(chosen).tag
    engine = box.engine()
    cards = [gpu for gpu in box.host.gpus if gpu.backend == chosen.backend]
    everything = sorted((*box.host.gpus, *(gpu for gpu, _ in box.host.ignored)), key=lambda gpu: gpu.pci_address)
    wiring = wire(cards[:1], engine.facts(), beside=everything) if cards else Wiring()
    spec = container_spec(source.absolute(), out, options, instance=paths.name, image=tag, wiring=wiring)
    make_directory(out)
    return run_there(engine, spec)


def container_spec(
    source: Path, out: Path, options: QuantizeOptions, *, instance: str, image: str, wiring: Wiring
) -> ContainerSpec:
    """The container: a job's, with the model and the given files to read and the folder of the results to write.

    Files have the same paths in it as outside, so that what it says can be followed. It has no network, and runs as the
    user who asked, so that the results are theirs.

    Raises:
        InputError: a path is one where the container has its own files.
    """
    files = [source, *(path.absolute() for path in _given(options))]
    for path in (out, *(file.parent for file in files)):
        if path == Path("/") or any(path.is_relative_to(own) for own in _ITS_OWN):
            raise InputError(f"{path} cannot be handed to a container", hint="choose another folder")
    inside = replace(
        options,
        imatrix=options.imatrix.absolute() if options.imatrix else None,
        text=options.text.absolute() if options.text else None,
        calibration=_absolute(options.calibration),
    )
    base = job_container(
        ("gpurig-job", *job_words(str(source), str(out), inside)),
        instance=instance,
        # Two that run at a time must not remove each other's.
        key=f"quantize {os.getpid()}",
        image=image,
        wiring=wiring,
        models=None,
    )
    return replace(
        base,
        mounts=(
            Mount(str(out), str(out)),
            *(Mount(str(file), str(file), read_only=True) for file in files if not file.is_relative_to(out)),
        ),
        network="none",
        user=f"{os.getuid()}:{os.getgid()}",
        environment=(("HOME", "/tmp"),),  # noqa: S108 - inside the container
    )


def run_there(engine: Engine, spec: ContainerSpec) -> int:
    """Run the container to its end, its output passed through; its exit code.

    Raises:
        PrerequisiteError: the image is not there, or the engine failed.
    """
    image_id = engine.image_id(spec.image)
    if image_id is None:
        raise PrerequisiteError(
            f"the engine has no image {spec.image}",
            hint="gpurig images build builds it; or install the eval extra: pip install 'gpurig[eval]'",
        )

    def show(data: bytes, *, error: bool) -> None:
        stream = sys.stderr if error else sys.stdout
        stream.write(data.decode(errors="replace"))
        stream.flush()

    return engine.follow(spec, image_id, on_output=show)


def _given(options: QuantizeOptions) -> list[Path]:
    text = None if options.calibration in (None, BUILT_IN) else Path(str(options.calibration))
    return [path for path in (options.imatrix, options.text, text) if path is not None]


def _absolute(calibration: str | None) -> str | None:
    return calibration if calibration in (None, BUILT_IN) else str(Path(str(calibration)).absolute())
