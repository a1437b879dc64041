"""The generic package registry [lib/api/generic_packages.rb, project_packages.rb, package_files.rb]."""

from __future__ import annotations

import hashlib
from typing import Any

from standins.gitlab.auth import caller, project_for
from standins.gitlab.model import DEVELOPER, REPORTER, Package, PackageFile, Project, now, stamp
from standins.gitlab.state import State
from standins.gitlab.wire import Request, Response, answer, message, paginated, ranged


def packages(state: State, request: Request) -> Response:
    """GET /projects/:id/packages; `package_name` searches a part of the name."""
    project = _project(state, request, REPORTER)
    params = request.params
    kind, name, version = params.text("package_type"), params.text("package_name"), params.text("package_version")
    found = [
        package
        for package in project.packages
        if kind in {"", "generic"} and name in package.name and version in {"", package.version}
    ]
    return paginated([_package(package) for package in found], request)


def package_files(state: State, request: Request) -> Response:
    """GET /projects/:id/packages/:package_id/package_files."""
    project = _project(state, request, REPORTER)
    wanted = int(request.path_params["package_id"])
    package = next((package for package in project.packages if package.id == wanted), None)
    if package is None:
        raise message(404, "404 Package Not Found")
    return paginated([_file(package, file) for file in package.files], request)


def download(state: State, request: Request) -> Response:
    """GET .../generic/:package_name/:package_version/:file_name: the newest file of that name.

    Where an object storage holds it, a redirection to there; `state.package_storage` is its address.
    """
    project = _project(state, request, REPORTER)
    path = request.path_params
    files = [
        file
        for package in project.packages
        if (package.name, package.version) == (path["package_name"], path["package_version"])
        for file in package.files
        if file.name == path["file_name"]
    ]
    if not files:
        raise message(404, "404 Not Found")
    if state.package_storage:
        return Response(302, b"", {"Location": f"{state.package_storage}/{files[-1].id}"})
    return ranged(request, files[-1].content, {"Content-Type": "application/octet-stream"})


def upload(state: State, request: Request) -> Response:
    """PUT .../generic/:package_name/:package_version/:file_name."""
    project = _project(state, request, DEVELOPER)
    path = request.path_params
    add_package_file(
        state, project, path["package_name"], path["package_version"], path["file_name"], content=request.body
    )
    return answer({"message": "201 Created"}, 201)


def add_package_file(
    state: State, project: Project, name: str, version: str, file: str, *, content: bytes
) -> PackageFile:
    """Put a file into a package, which is made where it is new."""
    package = next((one for one in project.packages if (one.name, one.version) == (name, version)), None)
    if package is None:
        package = Package(state.next_id(), name, version, now())
        project.packages.append(package)
    made = PackageFile(state.next_id(), file, content, now())
    package.files.append(made)
    return made


def _project(state: State, request: Request, level: int) -> Project:
    who = caller(state, request, job_token=True)
    return project_for(state, who, request.path_params["id"], level)


def _package(package: Package) -> dict[str, Any]:
    return {
        "id": package.id,
        "name": package.name,
        "version": package.version,
        "package_type": "generic",
        "status": "default",
        "created_at": stamp(package.created_at),
    }


def _file(package: Package, file: PackageFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "package_id": package.id,
        "created_at": stamp(file.created_at),
        "file_name": file.name,
        "size": len(file.content),
        "file_md5": None,
        "file_sha1": None,
        "file_sha256": hashlib.sha256(file.content).hexdigest(),
    }
