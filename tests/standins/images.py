"""The image of the tests' runner, or of a real gitlab-runner binary with the same conventions."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpurig.images.context import ContextFile, pack
from gpurig.images.plan import ImagePlan

if TYPE_CHECKING:
    import docker

_HERE = Path(__file__).parent / "runner"
_REAL = """ARG BASE_IMAGE
FROM ${BASE_IMAGE}
COPY gitlab-runner /usr/bin/gitlab-runner
COPY helper-images /usr/lib/gitlab-runner/helper-images
RUN chmod 755 /usr/bin/gitlab-runner && mkdir -p /etc/gitlab-runner /home/gitlab-runner
VOLUME ["/etc/gitlab-runner", "/home/gitlab-runner"]
STOPSIGNAL SIGQUIT
ENTRYPOINT ["/usr/bin/gitlab-runner"]
CMD ["run", "--working-directory=/home/gitlab-runner"]
"""


def standin_runner(engine: docker.DockerClient, base_image: str) -> str:
    """Build the stand-in's image where the engine lacks it; its name, which carries the hash of its content."""
    files = {
        path.name: path.read_bytes()
        for path in sorted(_HERE.iterdir())
        if path.suffix in {".py", ""} and path.is_file()
    }
    return image_of(engine, "gpurig-standin-runner", base_image, files)


def real_runner(engine: docker.DockerClient, base_image: str, binary: Path) -> str:
    """An image around a gitlab-runner binary.

    A folder `helper-images` beside the binary, as its packages install it, goes along: the runner loads its helper
    image from there where no registry is reached.
    """
    helpers = binary.parent / "helper-images"
    files = {"Dockerfile": _REAL.encode(), "gitlab-runner": binary.read_bytes(), "helper-images/.keep": b""}
    if helpers.is_dir():
        files |= {f"helper-images/{path.name}": path.read_bytes() for path in sorted(helpers.iterdir())}
    return image_of(engine, "gpurig-real-runner", base_image, files)


def image_of(engine: docker.DockerClient, name: str, base_image: str, files: Mapping[str, bytes]) -> str:
    """Build an image from a Dockerfile and what it copies, where the engine lacks it; its name, by its content."""
    from docker.errors import ImageNotFound

    digest = hashlib.sha256(str(engine.images.get(base_image).id).encode())
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path, content in sorted(files.items()):
            digest.update(path.encode() + b"\0" + hashlib.sha256(content).digest())
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    tag = f"{name}:{digest.hexdigest()[:16]}"
    try:
        engine.images.get(tag)
    except ImageNotFound:
        stream.seek(0)
        engine.images.build(fileobj=stream, custom_context=True, tag=tag, rm=True, buildargs={"BASE_IMAGE": base_image})
    return tag


def with_change(plan: ImagePlan, path: str, text: bytes, tag: str) -> ImagePlan:
    """The plan after a change: `text` is added to a file of the context, or is a new one's content."""
    with tarfile.open(fileobj=io.BytesIO(plan.context)) as archive:
        opened = [(member.name, archive.extractfile(member)) for member in archive.getmembers()]
        files = {name: file.read() for name, file in opened if file is not None}
        folders = [member.name for member in archive.getmembers() if member.isdir()]
    files[path] = files.get(path, b"") + text
    context = pack([ContextFile(name, data) for name, data in files.items()], folders=folders)
    return dataclasses.replace(plan, tag=tag, context=context)


def image_bytes_with(engine: docker.DockerClient, image_id: str, needles: Sequence[bytes]) -> set[bytes]:
    """Which of `needles` stand in any byte of the image: configuration, history, every layer's files."""
    overlap = max(len(needle) for needle in needles) - 1
    tail = b""
    found: set[bytes] = set()
    for chunk in engine.images.get(image_id).save():
        window = tail + chunk
        found |= {needle for needle in needles if needle in window}
        tail = window[-overlap:]
    return found
