"""Settings: what the user gave now, then what the last run remembered, then defaults; errors name the option."""

from __future__ import annotations

from typing import Any

import pytest
from gpurig.common.errors import InputError
from gpurig.provisioning.listen import split_listen
from gpurig.provisioning.settings import RUNNER_IMAGE, check_name, check_token, make_settings

GIVEN = {"url": "https://gitlab.example.com/", "runner_type": "project", "target": "42"}


def test_given_beats_remembered_beats_default() -> None:
    first = make_settings({**GIVEN, "concurrent": 2, "extra_tags": ("lab",)})
    assert first.url == "https://gitlab.example.com"
    assert first.runner_image == RUNNER_IMAGE
    second = make_settings({"concurrent": 3, "extra_tags": None}, first.model_dump(mode="json"))
    assert (second.concurrent, second.extra_tags, second.target) == (3, ("lab",), "42")


def test_a_second_run_needs_no_option_at_all() -> None:
    first = make_settings(GIVEN)
    assert make_settings({}, first.model_dump(mode="json")) == first


def test_a_setting_of_another_version_is_left_out() -> None:
    assert make_settings(GIVEN, {"gone": 1}) == make_settings(GIVEN)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"url": None}, "no GitLab"),
        ({"url": "ftp://x"}, "--url"),
        ({"url": "https://user:geheim@x"}, "--url"),
        ({"runner_type": None}, "whose runner"),
        ({"target": ""}, "its project or group"),
        ({"runner_type": "instance"}, "its project or group"),
        ({"concurrent": 0}, "--concurrent"),
        ({"concurrent": "many"}, "--concurrent"),
        ({"layout": "rack"}, "--layout"),
        ({"metrics_listen": "9476"}, "--metrics-listen"),
        ({"metrics_listen": "localhost:9476"}, "--metrics-listen"),
        ({"metrics_listen": "127.0.0.1:99999"}, "--metrics-listen"),
        ({"extra_tags": ("a,b",)}, "--tag"),
        ({"extra_tags": ("\x1b[31m",)}, "--tag"),
        ({"unknown": 1}, "--unknown"),
    ],
)
def test_a_wrong_value_is_told_by_its_option(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        make_settings({**GIVEN, **given})
    assert caught.value.hint
    assert "geheim" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("name", ["", "a/b", "../x", "UPPER", "-x", "x" * 40, "a b"])
def test_a_name_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="--name"):
        check_name(name)


def test_addresses_are_split() -> None:
    assert split_listen("127.0.0.1:9476") == ("127.0.0.1", 9476)
    assert split_listen("[::1]:1") == ("::1", 1)


@pytest.mark.parametrize("prefix", ["glrt-", "GR1348941", "glcbt-", "gldt-", "glptt-", "glft-", "glagent-"])
def test_a_token_of_the_wrong_kind_is_refused_by_kind_without_its_value(prefix: str) -> None:
    with pytest.raises(InputError, match="cannot create a runner") as caught:
        check_token(f"{prefix}SuperSecretValue\n")
    assert "SuperSecret" not in caught.value.message + caught.value.hint
    assert "create_runner" in caught.value.hint


@pytest.mark.parametrize("token", ["", "  \n", "two words", "glpat-\x00x", "glpat-ü", "line\nline"])
def test_what_is_no_token_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(InputError) as caught:
        check_token(token)
    assert token.strip() == "" or token.strip() not in caught.value.message


@pytest.mark.parametrize("token", ["glpat-abc", "own-prefix-abc", "0123456789abcdef"])
def test_access_tokens_pass_whatever_prefix_the_instance_gives_them(token: str) -> None:
    assert check_token(f"{token}\n") == token
