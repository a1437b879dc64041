"""config.toml: keys that gitlab-runner 19 knows, safe by default, and compared by what it must say."""

from __future__ import annotations

import copy
import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from gpurig.provisioning.config_toml import config_document, holds, parse_config, render_config, rotated_tokens
from gpurig.provisioning.facts import HostFacts
from gpurig.provisioning.plan import Plan, selfcheck_spec
from gpurig.provisioning.state import Registration
from standins.memory_box import two_gpus
from standins.plans import RADEON, plan_for
from standins.runner import config as runner_config

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
# Beside the repository's root; only the machine that develops gpurig has it.
KEYS = Path(__file__).resolve().parents[3] / "shared" / "gitlab-runner" / "config-keys.json"


def registrations(plan: Plan) -> dict[str, Registration]:
    return {
        entry.key: Registration(
            key=entry.key,
            spec=entry.runner.digest(),
            url=entry.runner.url,
            id=number,
            token=f"glrt-secret-{number}",
            description=entry.runner.description,
            tags=entry.runner.tags,
            obtained_at=NOW,
            expires_at=NOW if number % 2 else None,
        )
        for number, entry in enumerate(plan.entries, start=1)
    }


PLANS = {
    "cpu": lambda: plan_for(HostFacts()),
    "nvidia": lambda: plan_for(two_gpus()),
    "amd": lambda: plan_for(HostFacts(gpus=(RADEON,))),
    "everything": lambda: plan_for(
        HostFacts(gpus=(*two_gpus().gpus, RADEON)),
        layout="box",
        concurrent=2,
        helper_image="helper:1",
        allowed_images=("python:*",),
        allowed_pull_policies=("never",),
        http_proxy="http://proxy.example:3128",
        tls_ca_file=Path("/ca.pem"),
        extra_tags=("lab",),
    ),
}


def document(name: str) -> dict[str, Any]:
    plan = PLANS[name]()
    return config_document(plan, registrations(plan))


@pytest.mark.parametrize("name", PLANS)
def test_every_key_and_type_is_gitlab_runners_own(name: str) -> None:
    if not KEYS.exists():
        pytest.skip(f"no shared/gitlab-runner/{KEYS.name} beside the repository")
    known = json.loads(KEYS.read_text())["config.toml"]
    _check(document(name), known)


_GO_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "int": (int,),
    "int64": (int,),
    "bool": (bool,),
    "*bool": (bool,),
    "[]string": (list,),
    "[]DockerPullPolicy": (list,),
    "StringOrArray": (str, list),
    "map[string]string": (dict,),
    "map[string]bool": (dict,),
    "map[string][]string": (dict,),
    "time.Time": (datetime,),
}


def _check(table: dict[str, Any], known: dict[str, Any], where: str = "") -> None:
    for key, value in table.items():
        assert key in known, where + key
        kind = known[key]
        if isinstance(kind, dict):
            for one in value if isinstance(value, list) else [value]:
                _check(one, kind["table"], f"{where}{key}.")
        else:
            assert type(value) in _GO_TYPES[kind], where + key


@pytest.mark.parametrize("name", PLANS)
def test_the_text_is_toml_that_says_the_document_and_the_tests_runner_takes_it(name: str, tmp_path: Path) -> None:
    wanted = document(name)
    text = render_config(wanted)
    assert holds(tomllib.loads(text), wanted)
    (tmp_path / "config.toml").write_text(text)
    assert len(runner_config.load(tmp_path / "config.toml").entries) == len(wanted["runners"])


@pytest.mark.parametrize("name", PLANS)
def test_jobs_are_confined(name: str) -> None:
    for runner in document(name)["runners"]:
        docker = runner["docker"]
        assert docker["privileged"] is False
        assert docker["services_privileged"] is False
        assert "no-new-privileges:true" in docker["security_opt"]
        assert {"NET_RAW", "MKNOD"} <= set(docker["cap_drop"])
        assert not any("docker.sock" in volume for volume in docker["volumes"])
        assert any(volume.endswith(":/models:ro") for volume in docker["volumes"])
        assert "cap_add" not in docker


def test_the_selfcheck_is_wired_and_confined_as_a_job() -> None:
    plan = PLANS["everything"]()
    for entry, runner in zip(plan.entries, config_document(plan)["runners"], strict=True):
        spec, docker = selfcheck_spec(plan, entry), runner["docker"]
        assert spec.wiring == entry.wiring
        wanted = entry.wiring.config_keys() | entry.wiring.service_config_keys()
        assert {key: docker[key] for key in wanted} == wanted
        assert list(spec.cap_drop) == docker["cap_drop"]
        assert list(spec.security_opt) == docker["security_opt"]
        assert (spec.image, spec.shm_size) == (docker["image"], docker["shm_size"])
        mounted = [f"{m.source}:{m.target}:ro" for m in spec.mounts if m.read_only]
        assert mounted == [volume for volume in docker["volumes"] if volume != "/cache"]


@pytest.mark.parametrize(
    ("allowed", "default"),
    [
        (("if-not-present", "always"), "if-not-present"),
        (("always", "if-not-present"), "if-not-present"),
        (("never",), "never"),
        (("always", "never"), "always"),
    ],
)
def test_the_default_pull_policy_is_one_that_is_allowed(allowed: tuple[str, ...], default: str) -> None:
    (runner,) = config_document(plan_for(HostFacts(), allowed_pull_policies=allowed))["runners"]
    assert runner["docker"]["pull_policy"] == [default]
    assert runner["docker"]["allowed_pull_policies"] == list(allowed)


def test_allowed_images_hold_the_job_image_itself() -> None:
    docker = document("everything")["runners"][0]["docker"]
    assert docker["allowed_images"] == ["job-cuda:1", "python:*"]
    # A list of images that a job could pass by with a service would hold nobody.
    assert docker["allowed_services"] == docker["allowed_images"]


def test_a_custom_authority_is_named_by_its_path_in_the_runners_container() -> None:
    assert document("everything")["runners"][0]["tls-ca-file"] == "/etc/gitlab-runner/certs/gitlab-ca.crt"
    assert "tls-ca-file" not in document("cpu")["runners"][0]


def test_a_file_that_gitlab_runner_wrote_again_is_still_right() -> None:
    wanted = document("nvidia")
    present = copy.deepcopy(wanted)
    present["check_interval"] = 0
    present["session_server"] = {"session_timeout": 1800}
    for runner in present["runners"]:
        runner["cache"] = {"MaxUploadedArchiveSize": 0}
        runner["token_expires_at"] = runner.get("token_expires_at", datetime(1, 1, 1, tzinfo=UTC))
        runner["docker"]["network_mtu"] = 0
    assert holds(present, wanted)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("concurrent",), 7),
        (("runners", 0, "docker", "privileged"), True),
        (("runners", 0, "docker", "cap_drop"), []),
        (("runners", 0, "docker", "gpus"), "all"),
        (("runners", 1, "token"), "glrt-other"),
        (("runners", 1, "docker", "volumes"), ["/var/run/docker.sock:/var/run/docker.sock"]),
        (("runners", 0, "docker", "shm_size"), 1.0),
        (("runners",), []),
    ],
)
def test_every_change_that_matters_is_seen(path: tuple[Any, ...], value: Any) -> None:
    wanted = document("nvidia")
    present = copy.deepcopy(wanted)
    at: Any = present
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    assert not holds(present, wanted)


def test_a_file_that_is_no_toml_is_not_there() -> None:
    assert parse_config("this is = = no toml") is None


def test_tokens_are_read_back_as_the_runner_rotated_them() -> None:
    found = rotated_tokens(tomllib.loads(render_config(document("nvidia"))))
    assert found[1][0] == "glrt-secret-1"
    assert found[1][2] == NOW.replace(microsecond=0)
    assert found[2][2] is None
    assert rotated_tokens({"runners": [{"id": "x"}, "junk", {"id": 3}]}) == {}


def test_without_registrations_there_is_neither_id_nor_token() -> None:
    plan = PLANS["nvidia"]()
    assert not any({"id", "token"} & set(runner) for runner in config_document(plan)["runners"])
