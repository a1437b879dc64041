"""Two builders, one interface: what they print becomes the same events, and who keeps a secret is not asked to."""

from __future__ import annotations

import io
import tarfile
from types import SimpleNamespace

import pytest
from gpurig.common.errors import ApplianceError, InputError, PrerequisiteError
from gpurig.images.build_errors import explain
from gpurig.images.build_events import ClassicOutput, Output, PlainOutput, StepBegan, StepEnded
from gpurig.images.builders import (
    BuildKitBuilder,
    ClassicBuilder,
    available_builders,
    choose_builder,
)
from gpurig.images.context import ContextFile, pack
from gpurig.images.plan import ImagePlan, Transport
from gpurig.images.secret_mounts import mounted, with_secret_mounts
from hypothesis import given
from hypothesis import strategies as st

PASSWORD = "planted-31c9-secret"


def _plan(**changes) -> ImagePlan:
    values = {
        "tag": "gpurig-thing:01",
        "dockerfile": "Dockerfile",
        "context": pack([ContextFile("Dockerfile", b"FROM scratch\n")]),
        "build_args": {"A": "1"},
        "labels": {"l": "2"},
    }
    return ImagePlan(**{**values, **changes})


def _events(reader, lines):
    return [event for line in lines for event in reader.feed(line)]


def test_the_classic_builders_lines_become_steps():
    reader = ClassicOutput()
    events = _events(
        reader,
        [
            "Step 1/3 : FROM base",
            " ---> d18938a0424e",
            "Step 2/3 : RUN set -eu;     echo hi",
            " ---> Running in 0123456789ab",
            "hi",
            "Removing intermediate container 0123456789ab",
            " ---> d18938a0424f",
            "Step 3/3 : COPY a b",
            " ---> Using cache",
        ],
    )
    assert [*events, *reader.end()] == [
        StepBegan("1/3", "1/3", "FROM base"),
        StepEnded("1/3", "done"),
        StepBegan("2/3", "2/3", "RUN set -eu; echo hi"),
        Output("2/3", "hi"),
        StepEnded("2/3", "done"),
        StepBegan("3/3", "3/3", "COPY a b"),
        StepEnded("3/3", "cached"),
    ]


def test_buildkits_lines_become_steps_also_where_two_run_beside_each_other():
    reader = PlainOutput()
    events = _events(
        reader,
        [
            '#0 building with "default" instance using docker driver',
            "",
            "#1 [internal] load remote build context",
            "#1 DONE 0.0s",
            "#5 [one 2/2] RUN --mount=type=secret,id=netrc echo hi",
            "#6 [two 2/9] RUN sleep 1",
            "#6 CACHED",
            "#5 [one 2/2] RUN --mount=type=secret,id=netrc echo hi",
            "#5 0.108 hi",
            "#5 ERROR: process did not complete",
            "------",
            "ERROR: failed to solve: it broke",
        ],
    )
    assert events == [
        StepBegan("1", "", "[internal] load remote build context"),
        StepEnded("1", "done"),
        StepBegan("5", "one 2/2", "RUN echo hi"),
        StepBegan("6", "two 2/9", "RUN sleep 1"),
        StepEnded("6", "cached"),
        Output("5", "hi"),
        StepEnded("5", "failed"),
        Output("", "------"),
        Output("", "ERROR: failed to solve: it broke"),
    ]
    assert reader.error == "failed to solve: it broke"


@given(st.lists(st.one_of(st.text(max_size=60), st.from_regex(r"(#\d+|Step \d+/\d+ :) .{0,30}"))))
def test_no_output_of_a_command_confuses_the_readers(lines):
    for reader in (ClassicOutput(), PlainOutput()):
        open_steps: set[str] = set()
        for event in _events(reader, lines):
            if isinstance(event, StepBegan):
                assert event.key not in open_steps
                open_steps.add(event.key)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("RUN echo", "RUN echo"),
        ("RUN cat /run/secrets/netrc", "RUN --mount=type=secret,id=netrc cat /run/secrets/netrc"),
        (
            "run a; \\\n# /run/secrets/a\n\n  cat /run/secrets/b",
            "run --mount=type=secret,id=a --mount=type=secret,id=b a; \\\n# /run/secrets/a\n\n  cat /run/secrets/b",
        ),
        ("RUN a; \\\n  b\n# /run/secrets/netrc\nRUN c", "RUN a; \\\n  b\n# /run/secrets/netrc\nRUN c"),
        ("COPY /run/secrets/netrc /x", "COPY /run/secrets/netrc /x"),
        ("RUN a /run/secrets/netrc \\", "RUN a /run/secrets/netrc \\"),
    ],
)
def test_an_instruction_that_names_a_secret_mounts_it_and_no_other_does(before, after):
    assert mounted(before) == after


def test_the_mounts_are_the_only_difference_in_the_context():
    files = [ContextFile("Dockerfile", b"FROM a\nRUN x /run/secrets/netrc\n"), ContextFile("d/a", b"1" * 1000)]
    before = pack(files, folders=["empty"])
    with tarfile.open(fileobj=io.BytesIO(with_secret_mounts(before, "Dockerfile"))) as archive:
        contents = {one.name: archive.extractfile(one).read() for one in archive.getmembers() if one.isfile()}
        folders = {one.name for one in archive.getmembers() if one.isdir()}
    assert contents["d/a"] == b"1" * 1000
    assert contents["Dockerfile"] == b"FROM a\nRUN --mount=type=secret,id=netrc x /run/secrets/netrc\n"
    assert folders == {"d", "empty"}


def test_no_secret_and_no_private_argument_is_in_buildkits_command_line():
    plan = _plan(secrets={"netrc": f"machine h login u password {PASSWORD}\n"})
    command = BuildKitBuilder("unix:///run/x.sock").command(plan)
    assert PASSWORD not in " ".join(command)
    assert "id=netrc,env=GPURIG_BUILD_SECRET_NETRC" in command
    assert command[command.index("--builder") :][:2] == ["--builder", "default"]


def test_each_builder_refuses_what_it_would_keep_and_the_other_is_taken():
    classic, buildkit = ClassicBuilder(None), BuildKitBuilder("")
    with_secret, with_proxy = _plan(secrets={"netrc": "x"}), _plan(private_args={"HTTP_PROXY": "http://u:p@h"})
    both = (buildkit, classic)
    assert choose_builder(both, _plan()) is buildkit
    assert choose_builder(both, with_secret) is buildkit
    assert choose_builder(both, with_proxy) is classic
    assert choose_builder(both, _plan(), "classic") is classic
    with pytest.raises(InputError, match="classic builder would keep it"):
        choose_builder((classic,), with_secret)
    with pytest.raises(InputError, match="record of builds"):
        choose_builder(both, with_proxy, "buildkit")
    with pytest.raises(PrerequisiteError, match="buildkit is not available"):
        choose_builder((classic,), _plan(), "buildkit")


@pytest.mark.parametrize(
    ("header", "plugin", "names"),
    [
        ({"Builder-Version": "2"}, True, ["buildkit", "classic"]),
        ({"Builder-Version": "2"}, False, ["classic"]),
        ({"Builder-Version": "1"}, True, ["classic"]),
        ({}, True, ["classic"]),
    ],
)
def test_buildkit_is_there_where_engine_and_plugin_are(monkeypatch, header, plugin, names):
    monkeypatch.setattr("gpurig.images.builders._has_plugin", lambda: plugin)
    adapter = SimpleNamespace(socket_path="/run/e.sock")
    api = SimpleNamespace(
        base_url="http://e", head=lambda url: SimpleNamespace(headers=header), get_adapter=lambda url: adapter
    )
    found = available_builders(SimpleNamespace(api=api))
    assert [one.name for one in found] == names
    assert [one.address for one in found if one.name == "buildkit"] == ["unix:///run/e.sock"] * ("buildkit" in names)


BUILDKIT_FAILED = 'failed to solve: process "/bin/sh -c x" did not complete successfully: exit code: {}'
CLASSIC_FAILED = "The command '/bin/sh -c x' returned a non-zero code: {}"
_HEAD = (
    'failed to solve: b:1: failed to resolve source metadata for docker.io/library/b:1: failed to do request: Head "h"'
)


@pytest.mark.parametrize(
    ("buildkit", "classic"),
    [
        (BUILDKIT_FAILED.format(7), CLASSIC_FAILED.format(7)),
        (BUILDKIT_FAILED.format(137), CLASSIC_FAILED.format(137)),
        (f"{_HEAD}: dial tcp: lookup r: no such host", 'Get "https://r/v2/": dial tcp: lookup r: no such host'),
        (
            "failed to solve: b:1: failed to resolve source metadata for docker.io/library/b:1: b:1: not found",
            "manifest for b:1 not found: manifest unknown: manifest unknown",
        ),
        (
            "failed to solve: b:1: pull access denied, repository does not exist or may require authorization",
            "pull access denied for b, repository does not exist or may require 'docker login': denied",
        ),
        ("failed to solve: write /x: no space left on device", "write /x: no space left on device"),
    ],
)
def test_a_failure_reads_the_same_from_both_builders(buildkit, classic):
    said = ["Collecting x", "ERROR: no matching distribution"]
    told = explain(buildkit, said, base="b:1")
    assert told == explain(classic, said, base="b:1")
    assert "failed to solve" not in told[0]


def test_a_build_killed_for_memory_says_so():
    assert "memory" in explain(BUILDKIT_FAILED.format(137), ["cc1plus"], base="")[1]


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://me:" + PASSWORD + "@mirror.example:8443/simple", "https://mirror.example:8443/simple"),
        ("https://me:" + PASSWORD.replace("-", "%2D") + "@mirror.example/simple", "https://mirror.example/simple"),
    ],
)
def test_an_index_urls_password_becomes_a_secret_of_the_build(url, public):
    transport = Transport(pip_index_url=url)
    assert transport.build_args() == {"PIP_INDEX_URL": public}
    assert transport.secrets() == {"netrc": f"machine mirror.example login me password {PASSWORD}\n"}
    assert PASSWORD not in repr(transport)


def test_a_netrc_file_and_a_urls_password_go_together(tmp_path):
    file = tmp_path / "netrc"
    file.write_text("machine other login a password b")
    secrets = Transport(pip_index_url="https://u:p@h/simple", netrc=file).secrets()
    assert secrets == {"netrc": "machine other login a password b\nmachine h login u password p\n"}


@pytest.mark.parametrize(
    "url",
    [
        f"https://{PASSWORD}@mirror.example/simple",
        f"https://u:{PASSWORD}%20x@mirror.example/simple",
        f"https://u:{PASSWORD}%0Amachine@mirror.example/simple",
        f"https://u:{PASSWORD}",
        f"https://u:{PASSWORD}@[mirror/simple",
    ],
)
def test_a_url_that_cannot_be_split_is_refused_without_showing_it(url):
    with pytest.raises(InputError) as caught:
        Transport(pip_index_url=url).secrets()
    assert PASSWORD not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("text", [f"machine x {PASSWORD}", f"login {PASSWORD}", "\x00"])
def test_what_is_no_netrc_is_refused_without_showing_it(tmp_path, text):
    file = tmp_path / "netrc"
    file.write_text(text)
    with pytest.raises(ApplianceError, match="no netrc file") as caught:
        Transport(netrc=file).secrets()
    assert PASSWORD not in caught.value.message + caught.value.hint


def test_a_proxy_with_a_password_is_a_private_argument():
    transport = Transport(http_proxy=f"http://u:{PASSWORD}@p:1", https_proxy="http://p:2", no_proxy="x")
    assert set(transport.private_args()) == {"HTTP_PROXY", "http_proxy"}
    assert set(transport.build_args()) == {"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"}
