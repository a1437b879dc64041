"""Both builders on real engines: the same Dockerfile, the same errors, an end where it is stopped, no secret kept."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess  # noqa: TID251 - a program that is sent signals
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.waiting import wait_for
from gpurig.images.build import ensure_image
from gpurig.images.build_events import StepBegan, StepEnded
from gpurig.images.builders import Builder, BuildKitBuilder, ClassicBuilder, available_builders, choose_builder
from gpurig.images.context import ContextFile
from gpurig.images.plan import LABEL_HASH, ImagePlan, Transport, plan_image
from standins.images import image_bytes_with
from standins.missing import missing
from standins.package_index import PackageIndex

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.docker

SECRET = "planted-b41d-secret"
TWO_STAGES = """ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS first
RUN echo one > /one
FROM ${BASE_IMAGE}
COPY --from=first /one /one
RUN %s
"""


@pytest.fixture(params=["buildkit", "classic", "classic on the oldest engine"])
def rig(request: pytest.FixtureRequest, base_image: str) -> tuple[docker.DockerClient, Builder]:
    """An engine with a builder."""
    if request.param == "classic on the oldest engine":
        request.getfixturevalue("legacy_base_image")
        old = request.getfixturevalue("legacy_engine")
        (builder,) = available_builders(old)
        return old, builder
    client = request.getfixturevalue("engine")
    known = {one.name: one for one in available_builders(client)}
    if request.param not in known:
        missing("this engine has no BuildKit, or there is no docker buildx", "GPURIG_REQUIRE_DOCKER")
    return client, known[request.param]


@pytest.fixture
def buildkit(engine: docker.DockerClient) -> BuildKitBuilder:
    found = [one for one in available_builders(engine) if one.name == "buildkit"]
    if not found:
        missing("this engine has no BuildKit, or there is no docker buildx", "GPURIG_REQUIRE_DOCKER")
    assert isinstance(found[0], BuildKitBuilder)
    return found[0]


@pytest.fixture
def made(rig: tuple[docker.DockerClient, Builder]) -> Iterator[list[str]]:
    """Tags that the test makes, removed after it."""
    from docker.errors import ImageNotFound

    tags: list[str] = []
    yield tags
    for tag in tags:
        with contextlib.suppress(ImageNotFound):
            rig[0].images.remove(tag, force=True)


def _plan(dockerfile: str, base_image: str, transport: Transport | None = None, **files: bytes) -> ImagePlan:
    return plan_image(
        "gpurig-test",
        title="test",
        dockerfile="Dockerfile",
        files=(
            ContextFile("Dockerfile", dockerfile.encode()),
            *(ContextFile(name, data) for name, data in files.items()),
        ),
        build_args={"BASE_IMAGE": base_image},
        labels={"io.gpurig.test": 'a value, with = and "quotes"'},
        transport=transport or Transport(),
    )


def _choose(builder: Builder) -> Callable[[ImagePlan], Builder]:
    return lambda plan: choose_builder([builder], plan)


def test_one_dockerfile_gives_the_same_image_and_the_same_steps(rig, base_image, made):
    client, builder = rig
    plan = _plan(TWO_STAGES % f"cat /one; echo {time.time_ns()}", base_image)
    made.append(plan.tag)
    events, lines = [], []
    ensure_image(client, plan, on_event=events.append, on_line=lines.append, choose=_choose(builder))
    begun = {event.key: event.title for event in events if isinstance(event, StepBegan) and event.place}
    assert [title.split(";")[0] for title in begun.values() if title.startswith(("RUN", "COPY"))] == [
        "RUN echo one > /one",
        "COPY --from=first /one /one",
        "RUN cat /one",
    ]
    assert begun.keys() <= {event.key for event in events if isinstance(event, StepEnded)}
    assert any(line.endswith("| one") for line in lines)
    assert dict(plan.labels).items() <= client.images.get(plan.tag).labels.items()


def test_a_second_build_of_the_same_steps_says_that_they_were_there(rig, base_image, made):
    client, builder = rig
    mark = f"echo {time.time_ns()}"
    first, second = (_plan(TWO_STAGES % f"{mark}\n# {n}", base_image) for n in (1, 2))
    made += [first.tag, second.tag]
    ensure_image(client, first, choose=_choose(builder))
    events = []
    ensure_image(client, second, on_event=events.append, choose=_choose(builder))
    runs = {event.key for event in events if isinstance(event, StepBegan) and event.title.startswith("RUN")}
    assert runs
    assert {event.outcome for event in events if isinstance(event, StepEnded) and event.key in runs} == {"cached"}


def test_a_failed_command_is_told_in_the_same_words(rig, base_image, made, tmp_path):
    client, builder = rig
    plan = _plan(TWO_STAGES % f"echo {time.time_ns()}; echo 'error: the moon is full' >&2; exit 7", base_image)
    made.append(plan.tag)
    with pytest.raises(PrerequisiteError) as caught:
        ensure_image(client, plan, choose=_choose(builder), log=tmp_path / "log")
    assert caught.value.message == (
        f"building {plan.tag} failed: a command ended with exit code 7: error: the moon is full"
    )
    assert caught.value.hint == f"the whole log: {tmp_path / 'log'}"
    assert "exit 7" in (tmp_path / "log").read_text()
    assert client.images.list(plan.tag) == []


def test_a_base_image_that_nobody_has_is_told_in_the_same_words(rig, tmp_path):
    client, builder = rig
    plan = _plan(TWO_STAGES % "true", "127.0.0.1:1/gpurig-no-such-base:1")
    with pytest.raises(PrerequisiteError) as caught:
        ensure_image(client, plan, choose=_choose(builder), log=tmp_path / "log")
    assert caught.value.message == (
        f"building {plan.tag} failed: the engine does not have the image 127.0.0.1:1/gpurig-no-such-base:1 to build on "
        "and cannot reach its registry"
    )


def _running(mark: str) -> bool:
    """Whether a process with `mark` among its words runs on this machine: BuildKit's steps are no containers."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes()
            if mark.encode() in words and b"sleep" in words:
                return True
    return False


def test_an_interrupted_build_ends_on_the_engine_and_leaves_no_image(rig, base_image, made):
    client, builder = rig
    mark = f"mark{time.time_ns()}"
    plan = _plan(TWO_STAGES % f"echo {mark} started; sleep 600", base_image)
    made.append(plan.tag)

    def interrupt(line: str) -> None:
        if line.endswith(f"| {mark} started"):
            assert _running(mark)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_image(client, plan, on_line=interrupt, choose=_choose(builder))
    assert wait_for(lambda: not _running(mark), timeout_s=30)
    assert client.images.list(plan.tag) == []


def test_a_build_whose_program_is_killed_ends_too(buildkit, base_image, tmp_path):
    mark = f"mark{time.time_ns()}"
    plan = _plan(TWO_STAGES % f"while sleep 0.2; do echo {mark} on; done", base_image)
    program = (
        "import docker, sys\n"
        "from gpurig.images.build import ensure_image\n"
        "from gpurig.images.builders import BuildKitBuilder\n"
        "from gpurig.images.plan import ImagePlan\n"
        "context, dockerfile, tag, base, address = sys.argv[1:]\n"
        "plan = ImagePlan(tag, dockerfile, open(context, 'rb').read(), {'BASE_IMAGE': base}, {})\n"
        "ensure_image(docker.from_env(), plan, on_line=lambda line: print(line, flush=True),\n"
        "    choose=lambda _: BuildKitBuilder(address))\n"
    )
    (tmp_path / "context.tar").write_bytes(plan.context)
    words = [tmp_path / "context.tar", plan.dockerfile, plan.tag, base_image, buildkit.address]
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)], stdout=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if f"| {mark} on" in line:
                break
        assert _running(mark)
        process.kill()
    assert wait_for(lambda: not _running(mark), timeout_s=30)


INSTALL = """ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS packages
ARG PIP_INDEX_URL
RUN echo %s; export NETRC=/run/secrets/netrc PIP_NO_INPUT=1 PIP_NO_CACHE_DIR=1; \\
    python3 -m pip install --break-system-packages --trusted-host %s --target /p gpurig-test-package
FROM ${BASE_IMAGE}
COPY --from=packages /p /p
"""


@pytest.fixture
def index(bridge_address: str) -> Iterator[PackageIndex]:
    with PackageIndex(bridge_address, user="robot", password=SECRET) as index:
        yield index


def _engines_files_with(
    engine: docker.DockerClient, needles: list[bytes], *, since: float, everything: bool = True
) -> set[bytes]:
    """Which of the bytes stand in files of the engine's own folder that were written since: layers, cache, records.

    Args:
        everything: containerd's database too, which holds what a container was started with until it is overwritten.
    """
    root = Path(engine.info()["DockerRootDir"])
    if not os.access(root, os.R_OK):
        missing(f"this user may not read {root}", "GPURIG_REQUIRE_ROOT")
    found: set[bytes] = set()
    for folder, folders, names in os.walk(root):
        if Path(folder) == root and not everything:
            folders.remove("containerd")
        for name in names:
            path = Path(folder) / name
            with contextlib.suppress(OSError):
                # Of a file that came from the base image the status changed, not the content.
                if not path.is_symlink() and path.stat().st_mtime >= since:
                    content = path.read_bytes()
                    found |= {needle for needle in needles if needle in content}
    return found


def test_an_index_with_a_password_is_used_and_the_password_is_nowhere(engine, buildkit, base_image, index):
    since = time.time() - 2
    url = index.url.replace("://", f"://robot:{SECRET}@")
    plan = _plan(INSTALL % (time.time_ns(), index.host), base_image, Transport(pip_index_url=url))
    lines: list[str] = []
    image = ensure_image(engine, plan, on_line=lines.append, choose=_choose(buildkit))
    try:
        assert index.authorized > 0
        assert SECRET not in "".join(lines)
        got = engine.images.get(image.id)
        assert SECRET not in json.dumps(got.attrs) + json.dumps(got.history())
        module = b"NAME = 'gpurig_test_package'"
        assert image_bytes_with(engine, image.id, [module, SECRET.encode()]) == {module}
        needles = [module, plan.labels[LABEL_HASH].encode(), SECRET.encode()]
        assert _engines_files_with(engine, needles, since=since) == set(needles[:2])
    finally:
        engine.images.remove(image.id, force=True)


def test_another_password_compiles_nothing_again(engine, buildkit, base_image, index):
    mark = time.time_ns()
    plans = [
        _plan(
            (INSTALL + "# {}\n").replace("{}", str(n)) % (mark, index.host),
            base_image,
            Transport(pip_index_url=index.url.replace("://", f"://robot:{password}@")),
        )
        for n, password in enumerate((SECRET, "another"))
    ]
    try:
        for plan in plans:
            ensure_image(engine, plan, choose=_choose(buildkit))
        assert index.refused == 0
    finally:
        for plan in plans:
            engine.images.remove(plan.tag, force=True)


def test_a_wrong_password_is_a_failed_command(engine, buildkit, base_image, index, tmp_path):
    url = index.url.replace("://", "://robot:wrong@")
    plan = _plan(INSTALL % (time.time_ns(), index.host), base_image, Transport(pip_index_url=url))
    with pytest.raises(PrerequisiteError, match="exit code 1") as caught:
        ensure_image(engine, plan, choose=_choose(buildkit), log=tmp_path / "log")
    assert "--netrc" in caught.value.hint
    assert index.authorized == 0


def test_the_classic_builder_is_not_given_a_secret(engine, base_image):
    plan = _plan(TWO_STAGES % "true", base_image, Transport(pip_index_url=f"https://u:{SECRET}@h/simple"))
    with pytest.raises(InputError, match="classic builder would keep it"):
        ensure_image(engine, plan, choose=_choose(ClassicBuilder(engine)))


def test_a_proxys_password_goes_to_the_classic_builder_which_keeps_it_in_no_image(engine, base_image):
    since = time.time() - 2
    proxy = f"http://user:{SECRET}@127.0.0.1:1"
    run = f'test "$http_proxy" = "$HTTPS_PROXY" && echo {time.time_ns()} > /built'
    plan = _plan(TWO_STAGES % run, base_image, Transport(http_proxy=proxy, https_proxy=proxy))
    builder = choose_builder(available_builders(engine), plan)
    assert builder.name == "classic"
    image = ensure_image(engine, plan, choose=lambda _: builder)
    try:
        needles = [plan.labels[LABEL_HASH].encode(), SECRET.encode()]
        assert _engines_files_with(engine, needles, since=since, everything=False) == set(needles[:1])
    finally:
        engine.images.remove(image.id, force=True)


def test_nothing_is_left_in_the_users_folders(engine, buildkit, base_image, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    plan = _plan(TWO_STAGES % f"echo {time.time_ns()}", base_image)
    image = ensure_image(engine, plan, choose=_choose(buildkit))
    engine.images.remove(image.id, force=True)
    assert list(tmp_path.rglob("*")) == []
