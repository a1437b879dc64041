"""What goes into the build container before the script (sources, earlier artifacts) and comes out after it."""

from __future__ import annotations

import gzip
import io
import os
import posixpath
import re
import shutil
import subprocess  # noqa: TID251 - this package runs in an image of its own, without gpurig
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from docker.errors import NotFound

from standins.runner.client import Client
from standins.runner.container import SystemFailure
from standins.runner.payload import Payload

_CLONE_LIMIT_S = 600


def clone(payload: Payload, target: Path) -> None:
    """Fetch the job's commit into `target`.

    Raises:
        SystemFailure: git's own words.
    """
    git = payload.body["git_info"]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(target.parent),
        "GIT_TERMINAL_PROMPT": "0",
        **({"GIT_SSL_CAINFO": payload.entry.ca_file} if payload.entry.ca_file else {}),
    }
    depth = ["--depth", str(git["depth"])] if git.get("depth") else []
    for command in (
        ["init", "--quiet", str(target)],
        ["-C", str(target), "fetch", "--quiet", *depth, git["repo_url"], *git["refspecs"]],
        ["-C", str(target), "checkout", "--quiet", "--force", "--detach", git["sha"]],
        # The address carries the job's token, which is of no use to anybody later.
        ["-C", str(target), "update-ref", "-d", "FETCH_HEAD"],
    ):
        done = subprocess.run(
            ["git", *command],  # noqa: S607 - the image's git
            env=environment,
            capture_output=True,
            text=True,
            timeout=_CLONE_LIMIT_S,
            check=False,
        )
        if done.returncode != 0:
            said = re.sub(r"//[^@/\s]*@", "//", done.stderr.strip())
            raise SystemFailure(f"getting sources: git {command[-1] if len(command) < 3 else command[2]}: {said}")


def download(client: Client, payload: Payload, target: Path, note: Any) -> None:
    """Unpack the archives of the jobs that this one depends on into `target`; `note` gets a line for each."""
    for dependency in payload.body.get("dependencies") or []:
        if not (dependency.get("artifacts_file") or {}).get("filename"):
            continue
        note(f"Downloading artifacts for {dependency['name']} ({dependency['id']})...")
        archive = target.parent / "artifacts.zip"
        client.download(dependency["id"], dependency["token"], archive)
        with zipfile.ZipFile(archive) as stream:
            stream.extractall(target)  # noqa: S202 - ZipFile.extract drops absolute paths and ".."
        archive.unlink()


def pack(folder: Path, files: Mapping[str, str], payload: Payload) -> bytes:
    """A tar for the container's root: `folder` as the project, `files` as variables of type file.

    As after gitlab-runner's own clone, everybody may write everything: the image's user is not known.
    """
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path in _parents(payload.project_dir):
            archive.add(folder, arcname=path.lstrip("/"), recursive=False, filter=_open)
        archive.add(folder, arcname=payload.project_dir.lstrip("/"), filter=_open)
        archive.add(folder, arcname=payload.temporary_dir.lstrip("/"), recursive=False, filter=_open)
        for name, content in files.items():
            member = tarfile.TarInfo(f"{payload.temporary_dir.lstrip('/')}/{name}")
            member.mode, member.size = 0o666, len(content.encode())
            archive.addfile(member, io.BytesIO(content.encode()))
    return stream.getvalue()


def _parents(path: str) -> list[str]:
    parts = path.strip("/").split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _open(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mode |= 0o777 if member.isdir() or member.mode & 0o100 else 0o666
    return member


def fetch(container: Any, payload: Payload, target: Path) -> None:
    """Copy the project's folder out of the stopped container into `target`.

    Raises:
        SystemFailure: the script removed it.
    """
    try:
        stream, _ = container.get_archive(payload.project_dir)
    except NotFound as error:
        raise SystemFailure(f"the project's folder is gone: {payload.project_dir}") from error
    tar = target / "project.tar"
    with tar.open("wb") as output:
        for chunk in stream:
            output.write(chunk)
    with tarfile.open(tar) as archive:
        # Debian 12's Python knows no filters yet, and has no other way to be told.
        archive.extraction_filter = getattr(tarfile, "tar_filter", None)
        archive.extractall(target)  # noqa: S202 - the engine packed it
    tar.unlink()


def collect(folder: Path, wanted: Mapping[str, Any]) -> list[Path]:
    """The files below `folder` that an artifact's `paths` name and its `exclude` does not.

    A path may be a file, a folder (then all below it) or a pattern; links are kept as links, what lies outside the
    folder is left out.
    """
    found: set[Path] = set()
    for pattern in wanted.get("paths") or ():
        clean = posixpath.normpath(pattern.strip("/"))
        if clean.startswith(".."):
            continue
        for path in [folder / clean, *folder.glob(clean)]:
            if path.is_dir() and not path.is_symlink():
                found |= {below for below in path.rglob("*") if below.is_symlink() or not below.is_dir()}
            elif path.is_symlink() or path.exists():
                found.add(path)
    excluded = {path for pattern in wanted.get("exclude") or () for path in folder.glob(pattern)}
    return sorted(path for path in found - excluded if ".git" not in path.relative_to(folder).parts[:1])


def archive(folder: Path, paths: Iterable[Path], target: Path) -> None:
    """A zip of `paths` with their names relative to `folder`."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as stream:
        for path in paths:
            name = str(path.relative_to(folder))
            if path.is_symlink():
                member = zipfile.ZipInfo(name)
                member.create_system, member.external_attr = 3, 0o120777 << 16
                stream.writestr(member, str(path.readlink()))
            else:
                stream.write(path, name)


def compress(paths: Iterable[Path], target: Path) -> None:
    """One gzip file of several members, one a report, as GitLab's parsers read it."""
    with target.open("wb") as output:
        for path in paths:
            with gzip.GzipFile(filename=path.name, fileobj=output, mode="wb") as member, path.open("rb") as source:
                shutil.copyfileobj(source, member)
