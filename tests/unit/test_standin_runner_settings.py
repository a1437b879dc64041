"""The tests' runner reads config.toml as strictly as gitlab-runner, and hides secrets whatever the cuts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standins.runner import config, config_keys, devices
from standins.runner.masking import Masker
from standins.runner.payload import expand

_BASE = """
concurrent = 2
[[runners]]
name = "box"
url = "https://gitlab.example.com/"
token = "glrt-t3_abcdefghijklmnop"
executor = "docker"
[runners.docker]
image = "job:1"
"""


def _load(folder: Path, text: str) -> config.Config:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return config.load(path)


def test_a_plain_config_has_gitlab_runners_defaults(tmp_path: Path) -> None:
    loaded = _load(tmp_path, _BASE)
    (entry,) = loaded.entries
    assert (loaded.concurrent, loaded.check_interval_s) == (2, 3.0)
    assert (entry.url, entry.limit, entry.request_concurrency) == ("https://gitlab.example.com", 0, 1)
    assert (entry.pull_policies, entry.builds_dir, entry.short_token) == (("always",), "/builds", "abcdefghi")
    assert "abcdefghijklmnop" not in repr(loaded)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("image =", "img ="), "no key runners.docker.img"),
        (("concurrent", "concurent"), "no key concurent"),
        (('name = "box"', 'tags = ["cpu"]'), "no key runners.tags"),
        (("concurrent = 2", "concurrent = 0"), "concurrent must be at least 1"),
        (("concurrent = 2", 'concurrent = "2"'), "concurrent must be int, not str"),
        (('image = "job:1"', "shm_size = true"), "runners.docker.shm_size must be int64, not bool"),
        (('image = "job:1"', 'devices = "/dev/kfd"'), "runners.docker.devices must be []string"),
        (('image = "job:1"', "group_add = [44]"), "runners.docker.group_add must be a list of strings"),
        (('image = "job:1"', 'volume_driver = "nfs"'), "does not do runners.docker.volume_driver"),
        (('executor = "docker"', 'executor = "shell"'), "docker only"),
        (('token = "glrt-t3_abcdefghijklmnop"', ""), "runners.token is missing"),
        (("[runners.docker]", "[runners.docker"), "config.toml"),
    ],
)
def test_a_config_that_gitlab_runner_would_read_differently_is_refused(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    with pytest.raises(config.ConfigError) as caught:
        _load(tmp_path, _BASE.replace(*change))
    assert said in str(caught.value)


def test_the_known_keys_are_those_of_gitlab_runner() -> None:
    named = os.environ.get("GPURIG_GITLAB_RUNNER_KEYS")
    beside = Path(__file__).resolve().parents[3] / "shared" / "gitlab-runner" / "config-keys.json"
    path = Path(named) if named else beside
    if not path.is_file():
        pytest.skip("the list of gitlab-runner's keys is not here (GPURIG_GITLAB_RUNNER_KEYS names it)")
    whole = json.loads(path.read_text(encoding="utf-8"))["config.toml"]
    runner = whole["runners"]["table"]
    for known, table in (
        (config_keys.GLOBAL, whole),
        (config_keys.RUNNER, runner),
        (config_keys.DOCKER, runner["docker"]["table"]),
    ):
        assert known == {key: value if isinstance(value, str) else value["type"] for key, value in table.items()}


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ("all", {"Count": -1}),
        ("2", {"Count": 2}),
        ("device=GPU-1", {"DeviceIDs": ["GPU-1"]}),
        ('"device=0,2"', {"DeviceIDs": ["0", "2"]}),
        # Without quotes the 1 is a count, and the engine refuses both together.
        ("device=0,1", {"DeviceIDs": ["0"], "Count": 1}),
        ("driver=cdi,device=nvidia.com/gpu=0", {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0"]}),
        ("driver=nvidia", {"Driver": "nvidia", "Count": 1}),
        ("count=1,capabilities=utility", {"Count": 1, "Capabilities": [["utility", "gpu"]]}),
    ],
)
def test_gpus_is_read_as_dockers_command_line_reads_it(gpus: str, expected: dict[str, object]) -> None:
    default = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
    assert devices.device_requests(gpus) == [default | expected]


@pytest.mark.parametrize("gpus", ["some", "count=x", "colour=blue", "all,count=1", "driver=a,driver=b"])
def test_gpus_that_dockers_command_line_refuses_is_refused(gpus: str) -> None:
    with pytest.raises(ValueError, match=r"count|unexpected|once"):
        devices.device_requests(gpus)


def test_no_gpus_is_no_request_and_a_cdi_name_in_devices_breaks_as_in_gitlab_runner() -> None:
    assert devices.device_requests(" ") == []
    assert devices.device_mapping("/dev/kfd")["CgroupPermissions"] == "rwm"
    # Issue 37365: one part, taken as a path with :rwm added, which the engine then does not find.
    assert devices.device_mapping("nvidia.com/gpu=0")["PathOnHost"] == "nvidia.com/gpu=0"
    with pytest.raises(ValueError, match="too many colons"):
        devices.device_mapping("a:b:c:d")


@pytest.mark.parametrize(
    ("pattern", "image", "fits"),
    [
        ("gpurig/*", "gpurig/eval:1", True),
        ("gpurig/*", "gpurig/a/b", False),
        ("gpurig/**", "gpurig/a/b:2", True),
        ("**/*", "registry:5000/a/b:1", True),
        ("**/*", "postgres:16", True),
        ("job:{1,2}", "job:2", True),
        ("job:?", "job:12", False),
        ("my.registry/a", "myxregistry/a", False),
    ],
)
def test_allowed_images_matches_by_path_patterns(pattern: str, image: str, fits: bool) -> None:
    assert devices.matches(pattern, image) is fits


@pytest.mark.parametrize(("text", "size"), [("512m", 2**29), ("8g", 2**33), ("1.5GiB", 3 * 2**29), ("100", 100)])
def test_sizes_have_the_engines_binary_units(text: str, size: int) -> None:
    assert devices.size_bytes(text) == size


@given(
    st.lists(st.sampled_from([b"secret", b"secre", b"t", b"xsecretsecret", b"glpat-abc_1 ", b"glpa", b"t-zz", b"\n"])),
    st.integers(min_value=1, max_value=7),
)
def test_no_cut_of_the_stream_lets_a_secret_through(parts: list[bytes], size: int) -> None:
    text = b"".join(parts)
    whole = Masker(["secret"], ["glpat-"])
    wanted = whole.feed(text) + whole.flush()
    cut = Masker(["secret"], ["glpat-"])
    got = b"".join(cut.feed(text[start : start + size]) for start in range(0, len(text), size)) + cut.flush()
    assert b"secret" not in got
    assert b"glpat-abc" not in got
    assert got == wanted


def test_a_masked_log_keeps_everything_else_and_prefers_the_longer_secret() -> None:
    masker = Masker(["token", "token-long"], [])
    shown = masker.feed(b"a token-long and a token: to") + masker.flush()
    assert shown == b"a [MASKED] and a [MASKED]: to"


def test_references_expand_once_and_unknown_ones_vanish() -> None:
    assert expand("$A-${B}-$C", {"A": "$B", "B": "b"}) == "$B-b-"
