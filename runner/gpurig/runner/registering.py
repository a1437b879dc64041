"""The step that makes GitLab's runners match the plan, so that no crash leaves one that nobody knows.

Before a runner is asked for, the intention is on disk; when the answer is there, its id and token are. What an
interrupted run left is found by its description, where the user's token may list runners.

What GitLab knows of a runner is changed in place where the user's token may do that (scope api or manage_runner).
With scope create_runner alone another set of tags, limits or rights is another runner, and other words (description,
maintenance note) wait for a wider token.
"""

from __future__ import annotations

import functools
from typing import Literal

from gpurig.common.errors import RemoteError
from gpurig.provisioning.instances import instances
from gpurig.provisioning.plan import Entry
from gpurig.provisioning.runner_spec import spec_from
from gpurig.provisioning.runners import RefusedError
from gpurig.provisioning.state import Intent, Lost, Registration, State
from gpurig.runner.pruning import prune
from gpurig.runner.renewing import delete_lost, forget
from gpurig.runner.serving import remove_service
from gpurig.runner.up_run import UpRun


def register(run: UpRun) -> str:
    """Create and change runners; those that nobody wants any more are retired, and deleted at the end."""
    _prepare(run)
    needs = {entry.key: _need(run, entry) for entry in run.plan.entries}
    if {"create", "change"} & set(needs.values()):
        run.gitlab().check_token(run.plan.entries[0].runner)
    for intent in run.state.intents:
        _settle(run, intent)
    changed, created = [], []
    for entry in run.plan.entries:
        need = needs[entry.key]
        if need in {"change", "words"} and _change(run, entry, need):
            changed.append(_number(run, entry))
        elif need in {"change", "create"}:
            _create(run, entry)
            created.append(_number(run, entry))
    _retire_unwanted(run)
    done = [f"created {len(created)} runner(s) in GitLab: {', '.join(created)}"] if created else []
    done += [f"changed in GitLab: {', '.join(changed)}"] if changed else []
    if not done:
        return "unchanged"
    run.changes.append("register")
    return "; ".join(done)


def _number(run: UpRun, entry: Entry) -> str:
    one = run.state.registration(entry.key)
    return f"#{one.id}" if one else ""


def _prepare(run: UpRun) -> None:
    disk, paths = run.world.disk, run.paths
    run.make_directory(paths.config_dir, mode=0o700)
    run.locks.enter_context(disk.lock(paths.config_dir))
    if disk.read(paths.system_id) is None:
        # The runner's process writes it, whatever becomes of this run.
        run.undo.push(f"removing {paths.system_id}", functools.partial(disk.remove, paths.system_id))
    # Another run may have ended between the plan and the lock.
    run.load()
    if disk.read(paths.state) is None:

        def remove_empty_state() -> None:
            if run.state.empty:
                disk.remove(paths.state)

        run.undo.push(f"removing {paths.state}", remove_empty_state)


def _need(run: UpRun, entry: Entry) -> Literal["", "words", "change", "create"]:
    one = run.state.registration(entry.key)
    wanted = entry.runner
    if one is None or (one.sent and spec_from(one.sent).place != wanted.place):
        return "create"
    if not run.gitlab().accepts(one.token):
        return "create"
    if one.renewing:
        # GitLab did not do what it was asked for: the token is good.
        run.save(run.state.replacing(one.model_copy(update={"renewing": False})))
    if one.changing or one.spec != wanted.digest():
        return "change"
    return "" if one.sent == wanted.document() else "words"


def _change(run: UpRun, entry: Entry, need: Literal["change", "words"]) -> bool:
    """Change a runner in place; False where no token at hand may."""
    before = run.state.registration(entry.key)
    if before is None or not before.sent:
        return False

    def keep(**changes: object) -> None:
        # Of the registration as it is now: its token may be another by then.
        now = run.state.registration(entry.key)
        if now is not None and now.id == before.id:
            run.save(run.state.replacing(now.model_copy(update=changes)))

    was = {name: getattr(before, name) for name in ("spec", "sent", "description", "tags", "changing")}

    def change_back() -> None:
        run.gitlab(before.url).change(before.id, spec_from(before.sent))
        keep(**was)

    run.undo.push(f"changing the runner #{before.id} back", change_back)
    if need == "change":
        keep(changing=True)
    if not run.gitlab().change(before.id, entry.runner):
        keep(**was)
        return False
    spec = entry.runner
    keep(spec=spec.digest(), sent=spec.document(), description=spec.description, tags=spec.tags, changing=False)
    return True


def _create(run: UpRun, entry: Entry) -> None:
    intent = Intent(key=entry.key, url=entry.runner.url, description=entry.runner.description)
    unanswered = False

    def settle() -> None:
        if unanswered:
            _settle(run, intent)
        else:
            run.save(_without_intent(run.state, intent))

    run.undo.push("looking for a runner whose creation was not answered", settle)
    run.save(run.state.model_copy(update={"intents": (*run.state.intents, intent)}))
    unanswered = True
    try:
        made = run.gitlab().create(entry.runner)
    except RefusedError:
        unanswered = False
        raise
    unanswered = False
    registration = Registration(
        key=entry.key,
        spec=entry.runner.digest(),
        url=entry.runner.url,
        id=made.id,
        token=made.token,
        description=entry.runner.description,
        tags=entry.runner.tags,
        obtained_at=run.world.now(),
        expires_at=made.expires_at,
        gpus=entry.gpus,
        sent=entry.runner.document(),
    )
    before = run.state.registration(entry.key)
    run.undo.push(f"deleting the runner #{made.id}", functools.partial(_uncreate, run, registration, before))
    others = tuple(one for one in run.state.registrations if one.key != entry.key)
    retired = (*run.state.retired, before) if before else run.state.retired
    run.save(
        _without_intent(run.state, intent).model_copy(
            update={"registrations": _in_order(*others, registration), "retired": retired}
        )
    )


def _uncreate(run: UpRun, registration: Registration, before: Registration | None) -> None:
    run.gitlab(registration.url).delete(registration.token)
    kept = tuple(one for one in run.state.registrations if one.id != registration.id)
    retired = tuple(one for one in run.state.retired if one != before)
    run.save(
        run.state.model_copy(
            update={"registrations": _in_order(*kept, before) if before else kept, "retired": retired},
        )
    )


def _retire_unwanted(run: UpRun) -> None:
    wanted = {entry.key for entry in run.plan.entries}
    unwanted = tuple(one for one in run.state.registrations if one.key not in wanted)
    if not unwanted:
        return

    def keep_them() -> None:
        # Of the state as it is now: the tokens of others may be new by then.
        kept = tuple(one for one in run.state.registrations if one.key in wanted)
        retired = tuple(one for one in run.state.retired if one not in unwanted)
        run.save(run.state.model_copy(update={"registrations": _in_order(*kept, *unwanted), "retired": retired}))

    # Pushed first: a write that fails may have happened.
    run.undo.push("keeping the runners that were there", keep_them)
    run.save(
        run.state.model_copy(
            update={
                "registrations": tuple(one for one in run.state.registrations if one.key in wanted),
                "retired": (*run.state.retired, *unwanted),
            }
        )
    )


def _settle(run: UpRun, intent: Intent) -> None:
    """Find out whether GitLab made the runner of an intention, and delete it: its token is lost."""
    if intent not in run.state.intents:
        return
    lost = Lost(url=intent.url, runner_type=run.settings.runner_type, description=intent.description)
    state = _without_intent(run.state, intent)
    if delete_lost(run.gitlab(intent.url), lost, _known(run.state)) is None:
        tell(run, lost)
        # Not as an intention any more: the next one for this entry reads the same.
        state = _with_lost(state, lost)
    run.save(state)


def _with_lost(state: State, lost: Lost) -> State:
    return state.model_copy(update={"lost": tuple(dict.fromkeys((*state.lost, lost)))})


def _known(state: State) -> set[int]:
    return {one.id for one in (*state.registrations, *state.retired)}


def tell(run: UpRun, lost: Lost) -> None:
    """Tell the user of a runner that nobody here can delete, once a run."""
    if lost.told() not in run.notes:
        run.notes.append(lost.told())


def _in_order(*registrations: Registration) -> tuple[Registration, ...]:
    """By entry, so that a state that was taken back is the state that was."""
    return tuple(sorted(registrations, key=lambda one: one.key))


def _without_intent(state: State, intent: Intent) -> State:
    return state.model_copy(update={"intents": tuple(one for one in state.intents if one != intent)})


def tidy(run: UpRun) -> str:
    """What cannot be taken back, after everything new is proven: delete what was replaced."""
    run.undo.forget()
    removed = _remove_old_containers(run)
    if run.plan.service is None and (unit := remove_service(run.world, run.settings.name, str(run.paths.root))):
        removed.append(f"service {unit}")
    removed += _delete_retired(run)
    if run.prune:
        removed += prune(run, instances(run.world.disk, run.paths.root))
    removed += _delete_lost(run)
    if not removed:
        return "unchanged"
    run.changes.append("tidy")
    return "removed " + ", ".join(removed)


def _delete_lost(run: UpRun) -> list[str]:
    """Runners that former runs lost; what is not found now waits for a wider token, and the user was told once."""
    still, removed = [], []
    for lost in run.state.lost:
        try:
            deleted = delete_lost(run.gitlab(lost.url), lost, _known(run.state))
        except RemoteError:
            # A GitLab that was left for another may be gone for good.
            if lost.url == run.settings.url:
                raise
            deleted = None
        if deleted is None:
            still.append(lost)
        elif deleted:
            removed.append(f"runner #{lost.id}" if lost.id else "a runner that was never used")
    if tuple(still) != run.state.lost:
        run.save(run.state.model_copy(update={"lost": tuple(still)}))
    return removed


def _delete_retired(run: UpRun) -> list[str]:
    removed = []
    jobs = run.engine.jobs(run.settings.name) if run.state.retired else ()
    for one in run.state.retired:
        if any(job.runner and job.runner in one.token for job in jobs):
            run.notes.append(f"runner #{one.id} still runs a job: the next `gpurig up` deletes it")
            continue
        try:
            lost = forget(run.gitlab(one.url), one, run.world.now())
        except RemoteError:
            if one.url == run.settings.url:
                raise
            # An instance that was left for another may be gone for good: it must not keep this one from working.
            run.notes.append(f"runner #{one.id} at {one.url} could not be deleted: delete it there")
            lost = None
        state = run.state.model_copy(update={"retired": tuple(other for other in run.state.retired if other != one)})
        if lost is not None:
            tell(run, lost)
            state = _with_lost(state, lost)
        run.save(state)
        removed.append(f"runner #{one.id}")
    return removed


def _remove_old_containers(run: UpRun) -> list[str]:
    wanted = {spec.name for spec in run.plan.containers}
    removed = []
    for one in run.engine.find(run.settings.name):
        if one.name not in wanted:
            run.engine.stop(one.id, wait_s=10)
            run.engine.remove(one.id)
            removed.append(f"container {one.name}")
    return removed
