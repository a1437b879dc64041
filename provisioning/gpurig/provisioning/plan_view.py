"""A plan as people and machines read it."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any

from gpurig.common.terminal import harmless
from gpurig.provisioning.config_toml import config_document, render_config
from gpurig.provisioning.plan import Plan
from gpurig.provisioning.service_spec import ServiceSpec, render_unit


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan as JSON shows it; it holds no secret, because a plan knows none."""
    return {
        "version": 1,
        "runners": [
            {
                "key": entry.key,
                "backend": entry.backend,
                "gpus": list(entry.gpus),
                "description": entry.runner.description,
                "type": entry.runner.runner_type,
                "target": entry.runner.target,
                "tags": list(entry.runner.tags),
                "run_untagged": entry.runner.run_untagged,
                "locked": entry.runner.locked,
                "protected": entry.runner.protected,
                "paused": entry.runner.paused,
                "maximum_timeout": entry.runner.maximum_timeout,
                "maintenance_note": entry.runner.maintenance_note,
                "limit": entry.limit,
                "image": entry.image,
                "wiring": entry.wiring.config_keys(),
            }
            for entry in plan.entries
        ],
        "config": config_document(plan),
        "containers": [
            {
                "name": spec.name,
                "image": spec.image,
                "network": spec.network,
                "host_pids": spec.host_pids,
                "command": list(spec.command),
                "mounts": [dataclasses.asdict(mount) for mount in spec.mounts],
                "ports": [dataclasses.asdict(port) for port in spec.ports],
                "wiring": spec.wiring.config_keys(),
            }
            for spec in plan.containers
        ],
        "service": _service(plan.service),
        "images": {"runner": plan.runner_image, "job": list(plan.job_images), "exporter": plan.exporter_image},
        "files": {
            "config": str(plan.paths.config),
            "state": str(plan.paths.state),
            "models": str(plan.paths.models),
        },
    }


def _service(spec: ServiceSpec | None) -> dict[str, Any] | None:
    if spec is None:
        return None
    return {
        "name": spec.name,
        "unit": str(spec.path),
        "text": render_unit(spec),
        "binary": str(spec.binary),
        "version": spec.version,
    }


def plan_text(plan: Plan) -> str:
    """The plan in at most 80 columns, but for config.toml, which is shown as it will be written, without tokens."""
    lines = ["Runners to have in GitLab:"]
    for entry in plan.entries:
        target = f" {entry.runner.target}" if entry.runner.target else ""
        lines += [
            f"  {harmless(entry.runner.description)}",
            f"    {entry.runner.runner_type} runner{target} at {entry.runner.url}, {entry.limit} job(s) at a time",
            *_folded("    tags: ", ", ".join(entry.runner.tags)),
            *_folded("    GPU by: ", "; ".join(f"{k} = {v}" for k, v in entry.wiring.config_keys().items()) or "none"),
        ]
    lines += ["", "Images:"]
    lines += [f"  runner    {plan.runner_image}"] if plan.runner_image else []
    lines += [f"  job       {image}" for image in plan.job_images]
    lines += [f"  exporter  {plan.exporter_image}"] if plan.exporter_image else []
    if plan.service is not None:
        lines += ["", f"Service {plan.service.unit}, {plan.service.path}:", ""]
        lines += textwrap.indent(render_unit(plan.service), "  ").splitlines()
    lines += ["", "Containers:"] if plan.containers else []
    for spec in plan.containers:
        pids = ", the machine's processes" if spec.host_pids else ""
        lines.append(f"  {spec.name} ({spec.network} network{pids})")
        lines += [f"    {m.source} -> {m.target}{' (read-only)' if m.read_only else ''}" for m in spec.mounts]
        lines += [f"    {port.address}:{port.host} -> {port.container}" for port in spec.ports]
    lines += ["", f"{plan.paths.config}, tokens left out:", ""]
    config = "\n".join(render_config(config_document(plan)).splitlines()[2:])
    return "\n".join(lines) + "\n" + textwrap.indent(config, "  ")


def _folded(start: str, text: str) -> list[str]:
    return textwrap.wrap(
        harmless(text), 80, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False
    )
