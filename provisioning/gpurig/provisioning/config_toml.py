"""The runner's config.toml: rendered from the plan, compared with what is there.

Keys and types: gitlab-runner 19, common/config.go; docs.gitlab.com/runner/configuration/advanced-configuration.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from gpurig.provisioning.container_spec import NO_NEW_PRIVILEGES
from gpurig.provisioning.engine_facts import DEFAULT_ADDRESS
from gpurig.provisioning.metrics_containers import USAGE_DIR
from gpurig.provisioning.plan import (
    JOB_CAP_DROP,
    JOB_SHM_BYTES,
    MODELS_DIR,
    RUNNER_CA_FILE,
    Entry,
    Plan,
)
from gpurig.provisioning.settings import PullPolicy
from gpurig.provisioning.state import Registration

_HEADING = "# Written by gpurig: `gpurig up` writes it again. Jobs are configured in .gitlab-ci.yml.\n\n"


def config_document(plan: Plan, registrations: Mapping[str, Registration] | None = None) -> dict[str, Any]:
    """The whole configuration as TOML's data.

    Args:
        plan: what the box shall be.
        registrations: by the key of their entry; without them the document has neither ids nor tokens.
    """
    known = registrations or {}
    return {
        "concurrent": plan.concurrent,
        "runners": [_runner(plan, entry, known.get(entry.key)) for entry in plan.entries],
    }


def _runner(plan: Plan, entry: Entry, registration: Registration | None) -> dict[str, Any]:
    runner: dict[str, Any] = {"name": entry.runner.description, "url": entry.runner.url}
    if registration is not None:
        runner |= {
            "id": registration.id,
            "token": registration.token,
            "token_obtained_at": registration.obtained_at.replace(microsecond=0),
        }
        if registration.expires_at is not None:
            # With both times gitlab-runner rotates the token by itself before it expires.
            runner["token_expires_at"] = registration.expires_at.replace(microsecond=0)
    runner |= {"executor": "docker", "limit": entry.limit, "request_concurrency": 1}
    # For a --runner-image older than 19.4: without it bash turns every exit code of a job into 1
    # (gitlab-org/gitlab-runner issue 27668), and a pipeline could not tell "the gate failed" (3) from "the runner
    # failed" (4, 5). From 19.4 on this is the runner's own default, and the flag says nothing.
    runner["feature_flags"] = {"FF_USE_NEW_BASH_EVAL_STRATEGY": True}
    if plan.environment:
        runner["environment"] = [f"{name}={value}" for name, value in plan.environment]
    if plan.custom_ca:
        # The container sees the folder elsewhere.
        runner["tls-ca-file"] = RUNNER_CA_FILE if plan.service is None else str(plan.paths.ca_file)
    return runner | {"docker": _docker(plan, entry)}


def _docker(plan: Plan, entry: Entry) -> dict[str, Any]:
    docker: dict[str, Any] = {
        "image": entry.image,
        # Job images are built on the box and no registry has them; a job may still ask for a fresh public image.
        "pull_policy": [_default_policy(plan.allowed_pull_policies)],
        "allowed_pull_policies": list(plan.allowed_pull_policies),
        "privileged": False,
        "services_privileged": False,
        "cap_drop": list(JOB_CAP_DROP),
        "security_opt": list(NO_NEW_PRIVILEGES),
        "services_security_opt": list(NO_NEW_PRIVILEGES),
        "disable_entrypoint_overwrite": False,
        "oom_kill_disable": False,
        "disable_cache": False,
        "volumes": _volumes(plan),
        "shm_size": JOB_SHM_BYTES,
        "container_labels": {
            "gpurig.instance": plan.paths.name,
            "gpurig.role": "job",
            "gpurig.entry": entry.key,
        },
    }
    if plan.service is not None and plan.engine_address != DEFAULT_ADDRESS:
        # In its container the runner finds any engine's socket at the usual place.
        docker["host"] = plan.engine_address
    if plan.helper_image:
        docker["helper_image"] = plan.helper_image
    if plan.allowed_images:
        docker["allowed_images"] = list(dict.fromkeys((entry.image, *plan.allowed_images)))
        # gitlab-runner asks this list about services, and the other one about jobs alone.
        docker["allowed_services"] = docker["allowed_images"]
    return docker | entry.wiring.config_keys() | entry.wiring.service_config_keys()


def _volumes(plan: Plan) -> list[str]:
    volumes = [f"{plan.paths.models}:{MODELS_DIR}:ro", "/cache"]
    if plan.usage is not None:
        # gitlab-runner expands variables in where a volume goes, not in where it comes from (executors/docker/internal/
        # volumes/parser/base_parser.go): a job cannot be given its own project's folder alone.
        volumes.append(f"{plan.usage}:{USAGE_DIR}:ro")
    return volumes


def _default_policy(allowed: Sequence[PullPolicy]) -> PullPolicy:
    """gitlab-runner refuses a default that is not allowed."""
    return "if-not-present" if "if-not-present" in allowed else allowed[0]


def render_config(document: Mapping[str, Any]) -> str:
    """`document` as the text of a config.toml."""
    import tomli_w  # noqa: PLC0415

    return _HEADING + tomli_w.dumps(document)


def parse_config(text: str) -> dict[str, Any] | None:
    """The data of a config.toml; None where it is no TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def holds(present: Any, wanted: Any) -> bool:
    """Whether `present` says everything that `wanted` says.

    gitlab-runner writes the file again when it rotates a token, and adds tables of defaults: those do not count as a
    difference.
    """
    if isinstance(wanted, Mapping):
        return isinstance(present, Mapping) and all(
            key in present and holds(present[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list | tuple):
        return (
            isinstance(present, list | tuple)
            and len(present) == len(wanted)
            and all(holds(one, other) for one, other in zip(present, wanted, strict=True))
        )
    if isinstance(wanted, datetime) and isinstance(present, datetime):
        # gitlab-runner writes whole seconds.
        return present.replace(microsecond=0) == wanted.replace(microsecond=0)
    return type(present) is type(wanted) and bool(present == wanted)


def rotated_tokens(document: Mapping[str, Any]) -> dict[int, tuple[str, datetime | None, datetime | None]]:
    """Every runner's token as config.toml has it now, by the runner's id, with when it was obtained and expires.

    gitlab-runner rotates an expiring token by itself and writes the new one there and nowhere else.
    """
    found = {}
    for runner in document.get("runners") or []:
        if isinstance(runner, Mapping) and isinstance(runner.get("id"), int) and runner.get("token"):
            found[runner["id"]] = (
                str(runner["token"]),
                _time(runner.get("token_obtained_at")),
                _time(runner.get("token_expires_at")),
            )
    return found


def _time(value: Any) -> datetime | None:
    # Go's zero time stands for "never".
    return value if isinstance(value, datetime) and value.year > 1 else None
