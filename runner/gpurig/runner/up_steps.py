"""The steps of `up` that look, decide, build, write and prove; registering and starting have their own modules."""

from __future__ import annotations

import hashlib
import json

from gpurig.common.errors import PrerequisiteError
from gpurig.common.files import read_text
from gpurig.common.waiting import wait_for
from gpurig.provisioning.checks import (
    check_archives,
    check_ca_file,
    check_folders,
    check_hardware,
    check_names,
    check_port,
    check_unit,
)
from gpurig.provisioning.config_toml import config_document, holds, parse_config, render_config
from gpurig.provisioning.instances import instances, shared_gpus
from gpurig.provisioning.plan import Entry, plan_box, selfcheck_spec
from gpurig.provisioning.runner_binary import check_runner_binary
from gpurig.provisioning.state import Registration
from gpurig.runner.metrics_files import check_metrics, make_metrics_folders, metrics_url, write_web_files
from gpurig.runner.process import RunnerProcess, runner_process
from gpurig.runner.pruning import use
from gpurig.runner.renewing import renew
from gpurig.runner.selfchecking import findings
from gpurig.runner.up_run import UpRun

SELFCHECK_TIMEOUT_S = 300

RELOAD_NOTE = (
    "a new unit file takes systemctl daemon-reload, and with NVIDIA's hook and systemd's cgroups that takes the GPUs "
    "away from containers that run; gpurig's own are seen to, others must be started again (gpurig doctor, cgroup "
    "driver, says how to end this)"
)


def detect(run: UpRun) -> str:
    """What the box has."""
    run.host = run.world.detect()
    if not run.host.gpus:
        return "no GPU: a CPU box"
    names = [gpu.name or gpu.backend for gpu in run.host.gpus]
    return f"{len(names)} GPU(s): " + ", ".join(dict.fromkeys(names))


def check(run: UpRun) -> str:
    """What must be true before anything is made."""
    check_hardware(run.host, run.settings)
    check_ca_file(run.settings)
    check_metrics(run.settings)
    check_folders(run.paths)
    check_archives(run.archives)
    run.engine = run.world.engine(run.settings.docker_host)
    run.engine_facts = run.engine.facts()
    listening = {
        port
        for one in run.engine.find(run.settings.name)
        if one.role == "exporter" and one.running
        for port in one.ports
    }
    check_port(run.settings, ours=run.settings.metrics_listen.replace("[", "").replace("]", "") in listening)
    fine = f"Docker Engine {run.engine_facts.version}, folders, ports: fine"
    if run.settings.service == "container":
        return fine
    run.world.services.check()
    run.binary = run.world.runner_binary(run.settings.runner_binary)
    check_runner_binary(run.binary)
    return f"{fine}; gitlab-runner {run.binary.version or 'of unknown version'} at {run.binary.path}"


def plan(run: UpRun) -> str:
    """What the box shall become."""
    run.load()
    run.box = run.world.box(run.paths)
    run.images = run.world.images(run.settings, run.host, run.engine)
    run.plan = plan_box(
        run.host,
        run.engine_facts,
        run.settings,
        paths=run.paths,
        box=run.box,
        images=run.images.tags(),
        binary=run.binary,
    )
    check_names(run.engine, run.plan.containers)
    if run.plan.service is not None:
        check_unit(run.world.disk, run.plan.service)
        if run.plan.reload_takes_gpus:
            run.notes.append(RELOAD_NOTE)
    mine = [gpu for entry in run.plan.entries for gpu in entry.gpus]
    for gpu, names in shared_gpus(mine, run.settings.name, instances(run.world.disk, run.paths.root)).items():
        run.notes.append(
            f"the GPU {gpu} also serves {', '.join(names)}: jobs of both can meet in its memory, so keep their sum "
            "below it, or give each GPU to one instance"
        )
    tags = ", ".join(run.plan.entries[0].runner.tags)
    return f"{len(run.plan.entries)} runner entr{'y' if len(run.plan.entries) == 1 else 'ies'}, tags {tags}"


def image(run: UpRun) -> str:
    """The images: ours built, the runner's and the helper's pulled, where the engine lacks them."""
    done = _load_archives(run)
    for name in filter(None, (run.plan.runner_image, run.plan.helper_image)):
        there = run.engine.image_id(name)
        if there is None or run.pull:
            run.say("image", f"pulling {name}")
        image_id = run.engine.pull(name) if there is None or run.pull else there
        done += [f"pulled {name}"] if image_id != there else []
        run.image_ids[name] = image_id
    for tag in filter(None, (*run.plan.job_images, run.plan.exporter_image)):
        if run.engine.image_id(tag) is None:
            slow = "; llama.cpp compiles for some minutes the first time" if tag in run.plan.job_images else ""
            run.say("image", f"building {tag}{slow}")
        had = run.images.ensure(tag, on_line=run.on_line)
        run.image_ids[tag] = had.id
        use(run, tag)
        if had.built:
            done.append(f"built {tag}")
    if not done:
        return "unchanged"
    run.changes.append("image")
    return ", ".join(done)


def _load_archives(run: UpRun) -> list[str]:
    plan = run.plan
    names = filter(None, (plan.runner_image, plan.helper_image, *plan.job_images, plan.exporter_image))
    if not run.archives or all(run.engine.image_id(name) is not None for name in names):
        return []
    return [f"loaded {', '.join(run.engine.load(archive)) or archive.name}" for archive in run.archives]


def configure(run: UpRun) -> str:
    """The runner's config.toml, the certificate authority it trusts, and the folder of models."""
    disk, paths = run.world.disk, run.paths
    changed = []
    renewed = renew(run)
    run.make_directory(paths.models, mode=0o755)
    if run.settings.tls_ca_file is not None:
        run.make_directory(paths.ca_file.parent, mode=0o700)
        if run.write(paths.ca_file, read_text(run.settings.tls_ca_file), mode=0o644):
            changed.append(paths.ca_file.name)
    changed += write_web_files(run)
    make_metrics_folders(run)
    document = config_document(run.plan, {one.key: one for one in run.state.registrations})
    present = parse_config(disk.read(paths.config) or "")
    if present is None or not holds(present, document):
        run.write(paths.config, render_config(document), mode=0o600)
        changed.append(str(paths.config))
    done = renewed + (["wrote " + ", ".join(changed)] if changed else [])
    if not done:
        return "unchanged"
    run.changes.append("configure")
    return "; ".join(done)


def verify(run: UpRun) -> str:
    """Prove that a job would run, and that GitLab hears from the runner."""
    proven = dict(run.state.verified)
    checked = []
    for entry in run.plan.entries:
        digest = _proof(run, entry)
        if proven.get(entry.key) != digest:
            _selfcheck(run, entry)
            checked.append(entry.key)
            proven[entry.key] = digest
    wanted = {entry.key for entry in run.plan.entries}
    proven = {key: value for key, value in proven.items() if key in wanted}
    heard = _wait_online(run)
    settings = run.settings.remembered()
    images = tuple(sorted({*run.state.images, *filter(None, (*run.plan.job_images, run.plan.exporter_image))}))
    now = {"verified": proven, "settings": settings, "images": images}
    before = {name: getattr(run.state, name) for name in now}
    if now != before:
        run.undo.push("restoring what was proven", lambda: run.save(run.state.model_copy(update=before)))
        run.save(run.state.model_copy(update=now))
    if not checked:
        return f"unchanged; {heard}"
    run.changes.append("verify")
    return f"a job container passed its self-check on {', '.join(checked)}; {heard}"


def _proof(run: UpRun, entry: Entry) -> str:
    """What the self-check depends on: the container, its image, and the drivers under it."""
    drivers = sorted({gpu.driver for gpu in run.host.gpus if gpu.uuid in entry.gpus})
    spec = selfcheck_spec(run.plan, entry)
    value = json.dumps([spec.digest(run.image_ids[entry.image]), drivers, run.engine_facts.version])
    return hashlib.sha256(value.encode()).hexdigest()[:16]


def _selfcheck(run: UpRun, entry: Entry) -> None:
    spec = selfcheck_spec(run.plan, entry)
    findings(spec, run.engine.run(spec, run.image_ids[entry.image], timeout_s=SELFCHECK_TIMEOUT_S))


def _wait_online(run: UpRun) -> str:
    """Wait until GitLab says that every runner is online, or, where the token may not ask, that its process is up."""
    process = runner_process(run)
    registrations = [one for one in run.state.registrations if one.key in {entry.key for entry in run.plan.entries}]
    answer = wait_for(
        lambda: _heard(run, process, registrations),
        timeout_s=run.online_s,
        interval_s=0.5,
        clock=run.world.clock,
    )
    if answer is not None:
        return answer
    status = process.status()
    said = process.logs().strip().splitlines()
    raise PrerequisiteError(
        f"GitLab did not hear from the runner within {run.online_s:g} s (its {process.kind} is {status}"
        + (f", and said: {said[-1][:200]})" if said else ")"),
        hint=process.log_command,
    )


def _heard(run: UpRun, process: RunnerProcess, registrations: list[Registration]) -> str | None:
    if process.status() != process.up:
        return None
    # gitlab-runner writes its system id when it has read its configuration. GitLab's word alone would not do: it also
    # counts it as hearing from a runner that `up` itself verified the runner's token.
    if run.world.disk.read(run.paths.system_id) is None:
        return None
    answers = [run.gitlab().online(one.id) for one in registrations]
    if all(answer is True for answer in answers):
        return "GitLab says: online"
    if False not in answers:
        return "the runner is up (asking GitLab whether it is online needs a token of a wider scope)"
    jobs = run.engine.jobs(run.settings.name)
    if len(jobs) >= run.plan.concurrent:
        # It asks for no job, and GitLab hears nothing of a new entry, while every slot is taken.
        return f"the runner is up, and busy with {len(jobs)} job(s)"
    return None


def report(run: UpRun) -> str:
    """What the user has now."""
    ids = ", ".join(f"#{one.id}" for one in run.state.registrations)
    if not run.changes:
        return f"nothing to change: runner {ids} at {run.settings.url} is set up"
    tags = ", ".join(dict.fromkeys(tag for entry in run.plan.entries for tag in entry.runner.tags))
    metrics = f"; metrics: {url}" if (url := metrics_url(run.settings)) else ""
    return f"runner {ids} at {run.settings.url} takes jobs tagged {tags}{metrics}"
