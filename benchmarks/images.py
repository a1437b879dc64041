"""`make bench NAME=images`: how big the job images are, and what building them costs.

Sizes are what a registry holds and a pull fetches: every layer packed by gzip at its default level. The base that is
pinned by default lies on a registry, so a base of the same kind is made here by debootstrap: Debian bookworm, minbase,
with python3 and certificates, without documentation, translations and package lists. `cpu_compressed_mb` is the whole
image on that base.

With GPU_IMAGES=1 also the images for one architecture of CUDA 13, one that CUDA 13 dropped, and one gfx target, which
compile for a quarter of an hour and more on few cores. Build times are those of this run: of an image whose compiled
layers the engine had already there is none.

The forecasts of `gpurig models fit` are held against llama.cpp's own plan (tests/standins/forecast_matrix.py).

The peer of a rebuild is the same build by the other builder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import docker
from gpurig.common.process import run
from gpurig.common.terminal import table
from gpurig.images.build import ensure_image
from gpurig.images.build_events import BuildEvent, StepBegan, StepEnded
from gpurig.images.builders import Builder, available_builders
from gpurig.images.job_image import plan_job_image
from gpurig.images.job_spec import Wish, choose_job_image
from gpurig.images.plan import LABEL_BACKEND, ImagePlan, Transport
from gpurig.provisioning.facts import Backend
from measuring import machine, seconds, versions, write
from standins.forecast_matrix import forecast_figures, measure_all
from standins.images import with_change

ROUNDS = 3
PACKAGES = ("docker", "llama-cpp-python")
BASE = "gpurig-bench-base:bookworm"
CUDA_ARCH, CUDA_12_ARCH, GFX_TARGET = "sm-89", "sm-61", "gfx1100"
_CODE = "evaljobs/gpurig/evaljobs/__init__.py"
_GZIP_LEVEL, _GZIP = 6, 31
_MB = 1e6
# What official slim images lack as well.
_UNWANTED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "var/lib/apt/lists",
    "var/cache/apt",
)


def main() -> None:
    """Measure, print, write."""
    engine = docker.from_env(timeout=3600)
    builders = available_builders(engine)
    base = os.environ.get("GPURIG_BENCH_BASE_IMAGE") or made_base(engine)
    figures: dict[str, Any] = {"base_image": base, "base_compressed_mb": compressed_mb(layers(engine, base))}
    figures |= cpu(engine, builders, base)
    rows = [
        ["cpu image, compressed, with Python and base", f"{figures['cpu_compressed_mb']:.1f} MB", "≤ 100 MB"],
        ["  of that the base", f"{figures['base_compressed_mb']:.1f} MB", ""],
    ]
    for name in (one.name for one in builders):
        rows += [
            [f"rebuild after a code change, {name}", _s(figures, f"rebuild_after_code_change_{name}_s"), "≤ 15 s"],
            ["  cold build", _s(figures, f"cpu_build_{name}_s"), ""],
        ]
    told = forecast_figures(measure_all())
    figures |= told
    rows += [
        ["forecasts of memory: models", str(told["forecast_models"]), "≥ 12"],
        ["  outside of 3 % and 150 MiB", f"{told['forecast_outside']} of {told['forecast_rows']}", "0"],
        ["  largest error", f"{told['forecast_max_error_pct']:.1f} %", ""],
        ["  worst one under", f"{told['forecast_worst_under_mb']:.0f} MB", "0"],
    ]
    if os.environ.get("GPU_IMAGES") == "1":
        figures |= gpu(engine, builders[0], base, backend="cuda", arch=CUDA_ARCH)
        figures |= gpu(engine, builders[0], base, backend="cuda", arch=CUDA_12_ARCH, name="cuda12")
        figures |= gpu(engine, builders[0], base, backend="rocm", arch=GFX_TARGET)
        rows += [
            [f"cuda image for {CUDA_ARCH}, compressed", f"{figures['cuda_compressed_mb']:.0f} MB", "≤ 1000 MB"],
            ["  cold build", _s(figures, "cuda_build_s"), ""],
            [f"cuda 12 image for {CUDA_12_ARCH}, compressed", f"{figures['cuda12_compressed_mb']:.0f} MB", "≤ 1000 MB"],
            ["  cold build", _s(figures, "cuda12_build_s"), ""],
            [f"rocm image for {GFX_TARGET}, compressed", f"{figures['rocm_compressed_mb']:.0f} MB", "≤ 3000 MB"],
            ["  cold build", _s(figures, "rocm_build_s"), ""],
        ]
    engine.close()
    figures |= {"rounds": ROUNDS, "machine": machine(), "versions": versions(PACKAGES)}
    print(table(["images", "measured", "wanted"], rows))
    write("images", figures)


def _s(figures: dict[str, Any], name: str) -> str:
    return f"{figures[name]:.1f} s" if figures.get(name) is not None else "-"


def transport() -> Transport:
    """Builds trust what this machine trusts."""
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    return Transport(
        pip_index_url=os.environ.get("GPURIG_BENCH_PIP_INDEX_URL", ""), ca_bundle=bundle if bundle.is_file() else None
    )


def cpu(engine: docker.DockerClient, builders: Sequence[Builder], base: str) -> dict[str, Any]:
    """The CPU image by each builder, its size, and what a change of code costs."""
    plan = plan_job_image(choose_job_image("cpu", ()), base_image=base, transport=transport())
    figures: dict[str, Any] = {}
    for builder in builders:
        name = builder.name
        with built(engine, plan, builder) as (tag, cold_s):
            figures[f"cpu_build_{name}_s"] = cold_s
            if builder is builders[0]:
                whole = layers(engine, tag)
                figures["cpu_compressed_mb"] = compressed_mb(whole)
                figures["cpu_above_base_mb"] = compressed_mb(whole[len(layers(engine, base)) :])
            figures[f"rebuild_after_code_change_{name}_s"] = statistics.median(
                rebuild_s(engine, plan, builder) for _ in range(ROUNDS)
            )
    # One figure for both: the slower builder's.
    slowest = max(figures[f"rebuild_after_code_change_{builder.name}_s"] for builder in builders)
    return {**figures, "rebuild_after_code_change_s": slowest}


def gpu(
    engine: docker.DockerClient, builder: Builder, base: str, *, backend: Backend, arch: str, name: str = ""
) -> dict[str, Any]:
    """The image for one architecture of a backend, its figures by that name or another; no GPU is needed."""
    name = name or backend
    spec = choose_job_image(backend, (), Wish(archs=(arch,)))
    toolkit = os.environ.get(f"GPURIG_BENCH_{name.upper()}_TOOLKIT_IMAGE", "")
    # ROCm's libraries are taken over, and load on the distribution they come from.
    stands_on = toolkit if backend == "rocm" else base
    plan = plan_job_image(spec, base_image=stands_on, toolkit_image=toolkit, transport=transport())
    with built(engine, plan, builder) as (tag, cold_s):
        return {
            f"{name}_arch": arch,
            f"{name}_compressed_mb": compressed_mb(layers(engine, tag)),
            f"{name}_build_s": cold_s,
        }


@contextlib.contextmanager
def built(engine: docker.DockerClient, plan: ImagePlan, builder: Builder) -> Iterator[tuple[str, float | None]]:
    """The image under a name of the benchmark's own, and what a cold build took; None where llama.cpp was there."""
    tag = f"gpurig-bench-{plan.labels[LABEL_BACKEND]}:{builder.name}"
    forget(engine, tag)
    titles: dict[str, str] = {}
    compiled: list[bool] = []

    def note(event: BuildEvent) -> None:
        if isinstance(event, StepBegan):
            titles[event.key] = event.title
        elif isinstance(event, StepEnded) and "llama.sh" in titles.get(event.key, ""):
            compiled.append(event.outcome == "done")

    took = seconds(lambda: ensure_image(engine, replace(plan, tag=tag), choose=lambda _: builder, on_event=note))
    try:
        yield tag, took if any(compiled) else None
    finally:
        forget(engine, tag)


def rebuild_s(engine: docker.DockerClient, plan: ImagePlan, builder: Builder) -> float:
    """A build after a line was added to one module."""
    tag = f"gpurig-bench-change:{builder.name}"
    changed = with_change(plan, _CODE, f"\nCHANGED = {time.time_ns()}\n".encode(), tag)
    took = seconds(lambda: ensure_image(engine, changed, choose=lambda _: builder))
    forget(engine, tag)
    return took


def forget(engine: docker.DockerClient, tag: str) -> None:
    """Take the name away; what it was built from stays in the cache."""
    with contextlib.suppress(docker.errors.ImageNotFound):
        engine.images.remove(tag, noprune=True)


def layers(engine: docker.DockerClient, tag: str) -> list[int]:
    """The compressed size of each layer, in bytes, the base's first."""
    with tempfile.TemporaryFile() as file:
        for chunk in engine.images.get(tag).save(named=tag):
            file.write(chunk)
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            manifest = archive.extractfile("manifest.json")
            if manifest is None:
                sys.exit(f"{tag}: the engine saved something without a manifest")
            names = json.load(manifest)[0]["Layers"]
            return [_compressed(archive.extractfile(name)) for name in names]


def _compressed(layer: IO[bytes] | None) -> int:
    packer, size = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP), 0
    while layer is not None and (block := layer.read(2**20)):
        size += len(packer.compress(block))
    return size + len(packer.flush())


def compressed_mb(sizes: Sequence[int]) -> float:
    """In decimal megabytes, as registries count."""
    return round(sum(sizes) / _MB, 1)


def made_base(engine: docker.DockerClient) -> str:
    """The base, made by debootstrap where the engine lacks it."""
    with contextlib.suppress(docker.errors.ImageNotFound):
        engine.images.get(BASE)
        return BASE
    if not shutil.which("debootstrap") or os.geteuid() != 0:
        sys.exit("a base like python:3.12-slim is made by debootstrap, as root; or name one: GPURIG_BENCH_BASE_IMAGE")
    with tempfile.TemporaryDirectory() as folder:
        include = "--include=ca-certificates,python3"
        done = run(["debootstrap", "--variant=minbase", include, "bookworm", folder], timeout_s=1800)
        if done.code:
            sys.exit(f"debootstrap ended with {done.code}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        for name in _UNWANTED:
            shutil.rmtree(Path(folder) / name, ignore_errors=True)
        for package in (Path(folder) / "var/cache").rglob("*.deb"):
            package.unlink()
        with tempfile.TemporaryFile() as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                archive.add(folder, arcname=".")
            file.seek(0)
            repository, _, tag = BASE.partition(":")
            engine.api.import_image_from_data(file, repository=repository, tag=tag)
    return BASE


if __name__ == "__main__":
    main()
