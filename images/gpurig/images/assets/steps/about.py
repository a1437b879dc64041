"""Write what an image is and what it is made of: image.json and sbom.cdx.json (CycloneDX 1.6).

Runs in a build stage, with the image's own Python and nothing else:
    about.py FOLDER backend=cuda target=eval cpu_target=x86-64-v3 archs=75-real;89-real base=python:3.12@sha256:…

`gpurig-job selfcheck` reads image.json. The SBOM has no time in it: equal inputs give equal bytes.
The format: https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

GPURIG = Path("/opt/gpurig")
# The final image's Debian packages, and this stage's, from which single files go into the image.
BASE_PACKAGES = Path("/about/base/status")
BASE_RELEASE = Path("/about/base/os-release")
STAGE_PACKAGES = Path("/var/lib/dpkg/status")
COPIED_PACKAGES = {"tini", "libgomp1"}
# The packages that ROCm's libraries are from, of the toolkit image's distribution (rocm.py).
ROCM_PACKAGES = Path("/about/rocm/status")
# Debian's package of nvcc, where it is that one which compiled (debian-nvcc.sh).
NVCC = Path("/opt/cuda/nvcc.purl")
# What pip says it installed (cuda.sh, packages.sh), and the lock files.
REPORTS = Path("/opt/build/reports")
LOCKS = Path("/lock")

Component = dict[str, Any]


def main(arguments: list[str]) -> None:
    """Write both files into the folder that comes first."""
    folder = Path(arguments[0])
    facts = dict(argument.split("=", 1) for argument in arguments[1:])
    commit = (GPURIG / "llama.cpp-commit").read_text(encoding="ascii").strip()
    about = image(facts, commit)
    base = facts.get("base", "")
    _write(folder / "image.json", about)
    _write(folder / "sbom.cdx.json", sbom(about, base, commit))


def image(facts: dict[str, str], commit: str) -> dict[str, Any]:
    """What the self-check compares with the machine; what is not known is left out."""
    archs = [re.sub(r"^(\d+).*", r"sm-\1", arch) for arch in facts.get("archs", "").split(";") if arch]
    runtime = next(iter(sorted((GPURIG / "cuda").glob("libcudart.so.*"))), None)
    about = {
        "backend": facts["backend"],
        "target": facts["target"],
        "cpu_target": facts.get("cpu_target", ""),
        "archs": archs + [gfx for gfx in facts.get("gfx", "").split(";") if gfx],
        "cuda_major": int(runtime.name.rpartition(".")[2]) if runtime else 0,
        "driver": int(facts.get("driver") or 0),
        "llama_cpp_commit": commit,
    }
    return {key: value for key, value in about.items() if value}


def sbom(about: dict[str, Any], base: str, commit: str) -> dict[str, Any]:
    """The bill of materials of the image."""
    components = sorted(
        [*packages(), *debian(), *models(), *gpu_libraries(), llama(commit), interpreter()],
        key=lambda one: (one["type"], one["name"], one["bom-ref"]),
    )
    name, _, digest = base.partition("@sha256:")
    container: Component = {"type": "container", "name": f"gpurig-job-{about['backend']}", "bom-ref": "image"}
    version = next((one["version"] for one in components if one["name"] == "gpurig"), "")
    container["version"] = version
    facts = {**about, **({"nvcc": compiler} if (compiler := nvcc()) else {})}
    container["properties"] = [
        {"name": f"io.gpurig:{key}", "value": " ".join(value) if isinstance(value, list) else str(value)}
        for key, value in facts.items()
    ]
    if base:
        container["components"] = [
            {
                "type": "container",
                "name": name,
                "bom-ref": "base-image",
                **({"hashes": [{"alg": "SHA-256", "content": digest}]} if digest else {}),
            }
        ]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": container},
        "components": components,
    }
    content = json.dumps(document, sort_keys=True).encode()
    document["serialNumber"] = uuid.UUID(hashlib.sha256(content).hexdigest()[:32], version=4).urn
    return document


def packages() -> Iterator[Component]:
    """The Python packages, with the sha256 of the file that each came from; gpurig among them."""
    hashes = dict(_installed_hashes())
    seen = set()
    folders = [str(folder) for folder in (*GPURIG.glob("lib/python3*/site-packages"), GPURIG / "finetune")]
    for one in metadata.distributions(path=folders):
        name = re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower()
        if name in seen:
            continue
        seen.add(name)
        found = hashes.get((name, one.version))
        yield _component(
            "library",
            one.metadata["Name"],
            one.version,
            purl=f"pkg:pypi/{name}@{_quoted(one.version)}",
            sha256=found,
        )
    for line in (GPURIG / "app/gpurig/common/version.py").read_text(encoding="utf-8").splitlines():
        if match := re.match(r'__version__ = "(.*)"', line):
            yield _component("application", "gpurig", match[1], purl=f"pkg:pypi/gpurig@{_quoted(match[1])}")


def _installed_hashes() -> Iterator[tuple[tuple[str, str], str]]:
    """Name and version, and sha256: of what pip's reports have, and the lock's one file of what was compiled here."""
    for lock in sorted(LOCKS.glob("llama.lock")):
        text = lock.read_text(encoding="utf-8")
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", text)
        pin = re.match(r"(\S+)==([^\s;]+)", text)
        if pin and len(hashes) == 1:
            yield (pin[1], pin[2]), hashes[0]
    for one in _installed():
        name = re.sub(r"[-_.]+", "-", one["metadata"]["name"]).lower()
        if found := one["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256"):
            yield (name, one["metadata"]["version"]), found


def _installed(report: str = "*") -> Iterator[dict[str, Any]]:
    """What pip's reports say it installed, or the one that has that name."""
    for path in sorted(REPORTS.glob(f"{report}.json")):
        yield from json.loads(path.read_text(encoding="utf-8"))["install"]


def debian() -> Iterator[Component]:
    """The base image's Debian packages, and those of which files were copied.

    All are of one distribution: libraries that are taken over load on their own only.
    """
    names = set()
    distribution = _distribution()
    for fields in _dpkg(BASE_PACKAGES):
        names.add(fields["Package"])
        yield _debian_component(fields, distribution)
    for fields in _dpkg(STAGE_PACKAGES):
        if fields["Package"] in COPIED_PACKAGES - names:
            names.add(fields["Package"])
            yield _debian_component(fields, distribution)
    for fields in _dpkg(ROCM_PACKAGES):
        if fields["Package"] not in names:
            yield _debian_component(fields, distribution)


def _distribution() -> str:
    """The base image's, as package URLs name it: debian, ubuntu (os-release(5), ID)."""
    text = BASE_RELEASE.read_text(encoding="utf-8") if BASE_RELEASE.is_file() else ""
    found = re.search(r"""^ID=["']?([a-z0-9._-]+)""", text, re.MULTILINE)
    return found[1] if found else "debian"


def _dpkg(status: Path) -> Iterator[dict[str, str]]:
    """The installed packages of a dpkg database; none where there is none."""
    if not status.is_file():
        return
    for block in status.read_text(encoding="utf-8").split("\n\n"):
        fields = dict(re.findall(r"^(\S+): (.*)$", block, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            yield fields


def _debian_component(fields: dict[str, str], distribution: str) -> Component:
    name, version, arch = fields["Package"], fields["Version"], fields.get("Architecture", "")
    purl = f"pkg:deb/{distribution}/{_quoted(name)}@{_quoted(version)}?arch={arch}"
    return _component("library", name, version, purl=purl)


def models() -> Iterator[Component]:
    """The models that the image carries."""
    for path in sorted((GPURIG / "models").rglob("*.gguf")):
        yield _component("machine-learning-model", path.name, "", sha256=_sha256(path))


def gpu_libraries() -> Iterator[Component]:
    """The GPU vendor's libraries, file by file; the version where they are of its Python packages."""
    versions = _cuda_packages()
    for path in sorted((GPURIG / "cuda").glob("*.so.*")):
        package = "nvidia-cuda-runtime" if path.name.startswith("libcudart") else "nvidia-cublas"
        yield _component("library", path.name, versions.get(package, ""), sha256=_sha256(path))


def nvcc() -> str:
    """The package that compiled the kernels, as a package URL; "" for none, and for a toolkit image's."""
    if NVCC.is_file():
        return NVCC.read_text(encoding="ascii").strip()
    version = _cuda_packages().get("nvidia-cuda-nvcc", "")
    return f"pkg:pypi/nvidia-cuda-nvcc@{_quoted(version)}" if version else ""


def _cuda_packages() -> dict[str, str]:
    """The version of each of NVIDIA's packages that cuda.sh took; their names end in the CUDA version until 13."""
    return {
        one["metadata"]["name"].replace("_", "-").removesuffix("-cu12"): one["metadata"]["version"]
        for one in _installed("cuda")
    }


def llama(commit: str) -> Component:
    """llama.cpp itself, which llama-cpp-python carries."""
    return _component("library", "llama.cpp", commit, purl=f"pkg:github/ggml-org/llama.cpp@{commit}")


def interpreter() -> Component:
    """Python, which official Python images do not have as a Debian package."""
    version = platform.python_version()
    return _component("application", "python", version, purl=f"pkg:generic/python@{version}")


def _component(kind: str, name: str, version: str, *, purl: str = "", sha256: str | None = None) -> Component:
    component: Component = {"type": kind, "name": name, "bom-ref": purl or f"{kind}:{name}"}
    if version:
        component["version"] = version
    if purl:
        component["purl"] = purl
    if sha256:
        component["hashes"] = [{"alg": "SHA-256", "content": sha256}]
    return component


def _quoted(text: str) -> str:
    """Percent-encoded as package URLs want it."""
    return "".join(char if re.match(r"[A-Za-z0-9.~_-]", char) else f"%{ord(char):02X}" for char in text)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    # Equal content is an equal file of a layer.
    os.utime(path, (0, 0))


if __name__ == "__main__":
    main(sys.argv[1:])
