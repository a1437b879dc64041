"""Settings from a file: every key, every mistake by file, line and key; flags win; nothing secret in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from gpurig.common.errors import InputError
from gpurig.provisioning.settings import Settings, make_settings
from gpurig.provisioning.settings_file import KEYS, read_settings_file
from gpurig.runner.commands.instance import instance_options
from gpurig.runner.commands.up_options import Given, place_options, read_given, settings_options

DOCS = Path(__file__).parents[2] / "docs" / "set-up.md"
EVERY_KEY = """
url = "https://gitlab.example.com"
group = "tools/llm"
token_file = "token"
name = "lab"
layout = "box"
concurrent = 2
cpu = false
extra_tags = ["lab"]
allowed_images = ["gpurig-job-*"]
description = "the lab's"
maintenance_note = "call Ada"
maximum_timeout = 7200
run_untagged = true
locked = false
protected = true
paused = true
metrics_listen = "127.0.0.1:9999"
tls_ca_file = "certs/ca.pem"
http_proxy = "http://proxy.example:3128"
https_proxy = "http://proxy.example:3128"
no_proxy = "gitlab.example.com"
docker_host = "unix:///run/docker.sock"
registry_mirror = "mirror.example:5000/hub"
runner_image = "gitlab/gitlab-runner:next"
helper_image = "helper:1"
base_image = "python:3.12"
pip_index_url = "https://pypi.example/simple"
build_ca_bundle = "/etc/ca.pem"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "box.toml"
    path.write_text(text)
    return path


def test_a_file_may_hold_every_setting_with_paths_from_its_own_folder(tmp_path: Path) -> None:
    read = read_settings_file(write(tmp_path, EVERY_KEY))
    settings = make_settings(read.values)
    assert (settings.runner_type, settings.target, settings.maximum_timeout) == ("group", "tools/llm", 7200)
    assert settings.tls_ca_file == tmp_path / "certs" / "ca.pem"
    assert settings.build_ca_bundle == Path("/etc/ca.pem")
    assert read.token_file == str(tmp_path / "token")
    mentioned = {line.split(" = ")[0] for line in EVERY_KEY.splitlines() if line}
    assert set(read.values) >= mentioned - {"group", "token_file"}


def test_the_documentation_lists_every_key() -> None:
    text = DOCS.read_text()
    assert [key for key in KEYS if f"`{key}`" not in text] == []


@pytest.mark.parametrize(
    ("text", "place", "words", "hint"),
    [
        ('url = "https://x"\nconcurent = 2', "line 2, concurent", "unknown key", "did you mean concurrent?"),
        ("tags = []", "line 1, tags", "unknown key", "did you mean extra_tags?"),
        ("zzz = 1", "line 1, zzz", "unknown key", "the keys are"),
        ("[runner]\nname = 1", "line 1, runner", "unknown key", ""),
        ('runner_type = "project"', "runner_type", "unknown key", ""),
        ('token = "glpat-geheim"', "line 1, token", "does not belong", "token_file"),
        ('\n\nconcurrent = "2"', "line 3, concurrent", "whole number", "docs/set-up.md"),
        ("cpu = 1", "line 1, cpu", "true or false", ""),
        ('extra_tags = "lab"', "line 1, extra_tags", "a list", ""),
        ('extra_tags = ["a,b"]', "line 1, extra_tags", "comma", ""),
        ("description = 2026-01-02", "line 1, description", "a text", ""),
        ('url = "ftp://x"', "line 1, url", "http", ""),
        ('url = "https://user:geheim@x"', "line 1, url", "password", ""),
        ('http_proxy = "http://me:geheim@proxy:1"', "line 1, http_proxy", "password", ""),
        ('registry_mirror = "https://mirror"', "line 1, registry_mirror", "without https", ""),
        ("maximum_timeout = 60", "line 1, maximum_timeout", "600", ""),
        ('project = 1\ngroup = "a"', "line 2, group", "exclude", ""),
        ("project = true", "line 1, project", "number", ""),
        ("instance = false", "line 1, instance", "true or absent", ""),
        ("token_file = 1", "line 1, token_file", "path", ""),
        ('cpu = true\nurl = "geheim\n', "line 2", "no TOML", ""),
        ("cpu = true\nurl\n", "line 2", "no TOML", ""),
    ],
)
def test_a_mistake_is_told_by_file_line_and_key_and_never_by_its_value(
    tmp_path: Path, text: str, place: str, words: str, hint: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_settings_file(path)
    assert str(path) in caught.value.message
    assert place in caught.value.message
    assert words in caught.value.message
    assert caught.value.hint
    assert hint in caught.value.hint
    assert "geheim" not in caught.value.message + caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_bad_input(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "box.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"box\.toml"):
        read_settings_file(path)


def given(*words: str, env: dict[str, str] | None = None) -> Given:
    seen: list[Given] = []

    @click.command()
    @place_options
    @instance_options
    @settings_options
    @click.pass_context
    def command(context: click.Context, /, *, name: str, root: Path, **options: Any) -> None:
        seen.append(read_given(context, options, name=name))

    gone = dict.fromkeys(key for key in os.environ if key.lower().endswith("_proxy") or key == "DOCKER_HOST")
    CliRunner().invoke(command, list(words), env={**gone, **(env or {})}, catch_exceptions=False, standalone_mode=False)
    return seen[0]


def test_flags_beat_the_file_and_the_file_beats_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, 'url = "https://x"\nproject = 1\nconcurrent = 2\nhttp_proxy = "http://file:1"\nname = "lab"')
    env = {"HTTP_PROXY": "http://environment:1", "https_proxy": "http://environment:2"}
    one = given("--settings", str(path), "--concurrent", "3", env=env)
    settings = make_settings(one.now, {**one.environment, **(one.base or {})})
    assert (settings.concurrent, settings.http_proxy, settings.https_proxy) == (
        3,
        "http://file:1",
        "http://environment:2",
    )
    assert one.name == settings.name == "lab"
    assert given("--settings", str(path), "--name", "other").name == "other"


def test_an_option_that_is_not_given_is_silent_and_an_empty_one_takes_the_setting_back() -> None:
    remembered = {
        "url": "https://x",
        "runner_type": "project",
        "target": "1",
        "extra_tags": ["lab"],
        "tls_ca_file": "/ca.pem",
        "maximum_timeout": 900,
        "description": "old",
        "http_proxy": "http://proxy:1",
    }
    assert make_settings(given().now, remembered) == make_settings({}, remembered)
    words = ("--tag", "", "--tls-ca-file", "", "--maximum-timeout", "0", "--description", "", "--http-proxy", "")
    assert make_settings(given(*words).now, remembered) == Settings(url="https://x", target="1")


def test_whose_runner_it_is_is_said_once() -> None:
    assert given("--instance").now["target"] == ""
    with pytest.raises(InputError, match="exclude"):
        given("--project", "1", "--group", "2")


def test_proxies_reach_programs_in_both_spellings_and_only_where_there_are_any() -> None:
    base = {"url": "https://x", "runner_type": "project", "target": "1"}
    assert make_settings({**base, "no_proxy": "a"}).proxies() == ()
    both = dict(make_settings({**base, "https_proxy": "http://p:1", "no_proxy": "a,b"}).proxies())
    assert both == {"HTTPS_PROXY": "http://p:1", "https_proxy": "http://p:1", "NO_PROXY": "a,b", "no_proxy": "a,b"}


def test_a_mirror_serves_the_default_images() -> None:
    settings = Settings(url="https://x", target="1", registry_mirror="mirror.example:5000/hub/")
    assert settings.from_mirror("python:3.12") == "mirror.example:5000/hub/library/python:3.12"
    assert settings.from_mirror("gitlab/gitlab-runner:1") == "mirror.example:5000/hub/gitlab/gitlab-runner:1"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('concurrent = "two"', "it is a text, and a whole number is needed"),
        ("concurrent = 1.5", "it is a fraction, and a whole number is needed"),
        ("concurrent = 0", "1 is the least"),
        ('cpu = "yes"', "it is a text, and true or false is needed"),
        ("url = 5", "it is a whole number, and a text is needed"),
        ('extra_tags = "lab"', "it is a text, and a list is needed"),
        ("extra_tags = [1]", "an item of it is a whole number, and a text is needed"),
        ('layout = "gpus"', "it is another text, and 'gpu' or 'box' is needed"),
        ("service = true", "it is true or false, and 'container' or 'systemd' is needed"),
        ("locked = 2020-01-01", "it is a date or a table, and true or false is needed"),
        ("allowed_pull_policies = []", "it is empty"),
        ('wait = "1h"', "it is a text, and a whole number is needed"),
    ],
)
def test_a_wrong_value_is_told_by_its_field_its_kind_and_what_is_needed(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "box.toml"
    path.write_text(f"# a comment\n{line}\n")
    with pytest.raises(InputError) as caught:
        read_settings_file(path)
    assert caught.value.message == f"{path}, line 2, {line.split(' ', maxsplit=1)[0]}: {reason}"
    assert caught.value.exit_code == 2
