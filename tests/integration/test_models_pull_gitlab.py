"""`pull` from GitLab's generic package registry, and from a path where there is no network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from gpurig.common.errors import InputError, RemoteError, TransientError
from gpurig.common.models.gitlab_packages import GitLabAccess
from gpurig.common.models.origin import read_origin
from gpurig.common.process import run
from gpurig.common.retrying import Patience
from standins.calls import HandRunner
from standins.gitlab import GitLab
from standins.gitlab.faults import Kind
from standins.gitlab.packages_api import add_package_file
from standins.gitlab.server import Server
from standins.gitlab.wire import Request, Response, ranged
from standins.pulling import Puller, digest

FILE = "mine.gguf"
WHAT = f"gitlab:team/app/models/1.0/{FILE}"


def stored(server: GitLab, data: bytes) -> None:
    project = server.state.project_at("team/app") or server.add_project("team/app")
    add_package_file(server.state, project, "models", "1.0", FILE, content=data)
    # The registry's search finds parts of names.
    add_package_file(server.state, project, "models-old", "1.0", FILE, content=b"old")


def puller(folder: Path, server: GitLab, *scopes: str, **access: object) -> Puller:
    token = server.add_token(*(scopes or ("read_api",)))
    return Puller.of_gitlab(folder, GitLabAccess(server.url, **({"private_token": token} | access)))  # type: ignore[arg-type]  # its fields


def test_a_packages_file_comes_with_the_hash_that_gitlab_has(tmp_path: Path, gitlab: GitLab, model_data: bytes) -> None:
    stored(gitlab, model_data)
    done = puller(tmp_path, gitlab).pull(WHAT)
    assert (tmp_path / FILE).read_bytes() == model_data
    origin = read_origin(tmp_path, "mine")
    assert (origin.source, origin.files[0].sha256) == (WHAT, digest(model_data))
    assert done.fetched == len(model_data)


def test_a_project_may_be_named_by_its_id(tmp_path: Path, gitlab: GitLab, model_data: bytes) -> None:
    stored(gitlab, model_data)
    number = gitlab.state.project_at("team/app").id
    puller(tmp_path, gitlab).pull(f"gitlab:{number}/models/1.0/{FILE}")
    assert (tmp_path / FILE).read_bytes() == model_data


def test_of_several_files_of_one_name_the_newest_counts(
    tmp_path: Path, gitlab: GitLab, model_data: bytes, other_data: bytes
) -> None:
    stored(gitlab, other_data)
    stored(gitlab, model_data)
    puller(tmp_path, gitlab).pull(WHAT)
    assert (tmp_path / FILE).read_bytes() == model_data


@pytest.mark.parametrize("kind", ["status", "reset", "cut", "not-http", "silence", "garbage"])
@pytest.mark.parametrize("number", range(3))
def test_whichever_request_fails_once_the_model_arrives_with_the_next_pull_at_the_latest(
    tmp_path: Path, gitlab: GitLab, model_data: bytes, kind: Kind, number: int
) -> None:
    # In order: the packages, the package's files, the file.
    stored(gitlab, model_data)
    someone = puller(tmp_path, gitlab, timeout_s=0.4)
    fault = gitlab.fail(kind, skip=number, times=1)
    failure = None
    try:
        someone.pull(WHAT)
    except RemoteError as error:
        failure = error
    if failure is not None:
        assert (failure.exit_code, bool(failure.hint)) == (5, True)
        someone.pull(WHAT)
    assert fault.met == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, "mine.origin.json"]
    assert (tmp_path / FILE).read_bytes() == model_data


def test_the_next_pull_goes_on_where_the_last_one_was_given_up(
    tmp_path: Path, gitlab: GitLab, model_data: bytes
) -> None:
    stored(gitlab, model_data)
    someone = puller(tmp_path, gitlab)
    someone.patience = Patience(attempts=1)
    fault = gitlab.fail("cut", path=".*/generic/.*")
    with pytest.raises(TransientError):
        someone.pull(WHAT)
    fault.times = 0
    done = someone.pull(WHAT)
    assert 0 < done.fetched < len(model_data)
    assert (tmp_path / FILE).read_bytes() == model_data


def test_gitlabs_wish_to_wait_is_followed(tmp_path: Path, gitlab: GitLab, model_data: bytes) -> None:
    stored(gitlab, model_data)
    someone = puller(tmp_path, gitlab)
    gitlab.fail("status", status=429, times=2)
    someone.pull(WHAT)
    assert len(someone.clock.naps) == 2


@pytest.mark.parametrize(
    "where", ["team/app/models/1.0/absent.gguf", "team/app/models/9/mine.gguf", "no/where/m/1/m.gguf"]
)
def test_what_is_not_there_is_said(tmp_path: Path, gitlab: GitLab, model_data: bytes, where: str) -> None:
    stored(gitlab, model_data)
    with pytest.raises(RemoteError, match="404") as caught:
        puller(tmp_path, gitlab).pull(f"gitlab:{where}")
    assert "project, package, version and file" in caught.value.hint


def test_a_token_without_the_scope_is_told_so(tmp_path: Path, gitlab: GitLab, model_data: bytes) -> None:
    stored(gitlab, model_data)
    with pytest.raises(RemoteError, match="403") as caught:
        puller(tmp_path, gitlab, "create_runner").pull(WHAT)
    assert "read_api" in caught.value.hint


def test_a_jobs_own_token_is_enough_and_is_not_sent_to_the_object_storage(
    tmp_path: Path, gitlab: GitLab, model_data: bytes
) -> None:
    stored(gitlab, model_data)
    project = gitlab.state.project_at("team/app")
    runner = HandRunner.make(gitlab, project.id, "cpu")
    gitlab.create_pipeline(project, "make: {tags: [cpu], script: [echo]}")
    token = runner.take()["token"]

    def blob(request: Request) -> tuple[Response, str]:
        return ranged(request, model_data), "blob"

    storage = Server("127.0.0.1", 0, blob)
    try:
        gitlab.state.package_storage = f"http://127.0.0.1:{storage.server_port}"
        puller(tmp_path, gitlab, private_token=None, job_token=token).pull(WHAT)
    finally:
        storage.close()
    assert (tmp_path / FILE).read_bytes() == model_data
    (sent,) = (exchange.request.headers for exchange in storage.log.exchanges)
    assert "job-token" not in sent
    assert gitlab.requests[-1].request.headers["job-token"] == token


def test_the_command_reads_a_jobs_variables(tmp_path: Path, gitlab: GitLab, model_data: bytes) -> None:
    stored(gitlab, model_data)
    token = tmp_path / "token"
    token.write_text(gitlab.add_token("read_api") + "\n")
    words = ["models", "pull", WHAT, "--dir", str(tmp_path / "models"), "--token-file", str(token)]
    done = run(
        [sys.executable, "-m", "gpurig.runner", *words], timeout_s=60, env={**os.environ, "CI_SERVER_URL": gitlab.url}
    )
    assert done.code == 0, done.stderr
    assert digest(model_data) in done.stdout
    assert token.read_text().strip() not in done.stdout + done.stderr


def test_no_gitlab_is_asked_for(tmp_path: Path) -> None:
    someone = Puller.of_gitlab(tmp_path, GitLabAccess("http://x"))
    someone.access = type(someone.access)(someone.access.hub, None)
    with pytest.raises(InputError, match="needs a GitLab") as caught:
        someone.pull(WHAT)
    assert "--url" in caught.value.hint


def offline(folder: Path) -> Puller:
    return Puller.of_gitlab(folder, GitLabAccess("http://127.0.0.1:1"))


def test_a_file_from_a_stick_is_copied_whole_and_pinned(tmp_path: Path, model_data: bytes) -> None:
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb" / FILE).write_bytes(model_data)
    done = offline(tmp_path / "models").pull(str(tmp_path / "usb" / FILE))
    assert (tmp_path / "models" / FILE).read_bytes() == model_data
    assert done.origin.source == str(tmp_path / "usb" / FILE)


def test_a_folder_with_hashes_is_held_against_them(tmp_path: Path, model_data: bytes, other_data: bytes) -> None:
    (tmp_path / FILE).write_bytes(model_data)
    (tmp_path / "SHA256SUMS").write_text(f"{digest(other_data)}  {FILE}\n")
    with pytest.raises(InputError, match="SHA256SUMS beside it says"):
        offline(tmp_path / "models").pull(str(tmp_path))
    (tmp_path / "SHA256SUMS").write_text(f"{digest(model_data)} *./{FILE}\n")
    offline(tmp_path / "models").pull(str(tmp_path))
    assert (tmp_path / "models" / FILE).read_bytes() == model_data


def test_another_boxes_folder_brings_where_a_model_came_from(tmp_path: Path, gitlab: GitLab, model_data: bytes) -> None:
    stored(gitlab, model_data)
    puller(tmp_path / "box", gitlab).pull(WHAT)
    done = offline(tmp_path / "models").pull(str(tmp_path / "box" / FILE))
    assert done.origin.source == WHAT


@pytest.mark.parametrize("wrong", ["0" * 64, "A" * 64])
def test_a_hash_from_the_command_line_is_what_counts(tmp_path: Path, model_data: bytes, wrong: str) -> None:
    (tmp_path / FILE).write_bytes(model_data)
    someone = offline(tmp_path / "models")
    with pytest.raises(InputError, match="you asked for sha256") as caught:
        someone.pull(str(tmp_path / FILE), sha256=wrong)
    with pytest.raises(InputError, match="is no SHA-256"):
        someone.pull(str(tmp_path / FILE), sha256=wrong[1:])
    assert caught.value.exit_code == 2
    assert someone.files == []
    someone.pull(str(tmp_path / FILE), sha256=digest(model_data).upper())


def test_a_folder_that_holds_two_models_or_none_is_told_so(tmp_path: Path, model_data: bytes) -> None:
    with pytest.raises(InputError, match="holds 0 models"):
        offline(tmp_path / "models").pull(str(tmp_path))
    (tmp_path / "a.gguf").write_bytes(model_data)
    (tmp_path / "b.gguf").write_bytes(model_data)
    with pytest.raises(InputError, match="holds 2 models"):
        offline(tmp_path / "models").pull(str(tmp_path))


def test_a_path_that_is_not_there_or_lacks_a_part_is_bad_input(tmp_path: Path, model_data: bytes) -> None:
    with pytest.raises(InputError, match="there is no file"):
        offline(tmp_path / "models").pull("./absent.gguf")
    (tmp_path / "big-00001-of-00002.gguf").write_bytes(model_data)
    with pytest.raises(InputError, match="00002-of-00002"):
        offline(tmp_path / "models").pull(str(tmp_path / "big-00001-of-00002.gguf"))
