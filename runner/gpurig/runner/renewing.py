"""Tokens that expire: when one is renewed, and how no crash loses more than a runner that the next `up` replaces.

gitlab-runner renews its tokens by itself at three quarters of their life, while it runs. `up` does where it did not: a
box that was off, a runner that was stopped. GitLab makes the old token worthless at once, so the order is: a mark on
disk, the exchange, the new token on disk, then in config.toml, from which no undo takes it back.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from gpurig.provisioning.config_toml import parse_config, render_config
from gpurig.provisioning.runners import GitLab
from gpurig.provisioning.state import Lost, Registration
from gpurig.runner.up_run import UpRun

# Later than gitlab-runner's own quarter of the life, so that the two do not meet.
RENEW_BEFORE = timedelta(days=7)
_RENEW_SHARE = 8


def due(one: Registration, now: datetime) -> bool:
    """Whether a token should have been renewed by now: a week, or an eighth of its life where that is less, is left."""
    if one.expires_at is None:
        return False
    life = max(one.expires_at - one.obtained_at, timedelta(0))
    return one.expires_at - now < min(RENEW_BEFORE, life / _RENEW_SHARE)


def renew(run: UpRun) -> list[str]:
    """Renew the tokens that are due; what was done.

    Raises:
        RemoteError: GitLab failed; a token whose renewal was not answered is replaced by the next run.
    """
    done = []
    for one in run.state.registrations:
        if not due(one, run.world.now()):
            continue
        # A new token that could not be written is tried once more.
        run.undo.push("keeping the renewed token", lambda: run.save(run.state))
        run.save(run.state.replacing(one.model_copy(update={"renewing": True})))
        made = run.gitlab(one.url).reset_token(one.token)
        if made is None:
            # Between the look at it and now somebody else did it, or it ran out: the next run sees which.
            run.save(run.state.replacing(one))
            continue
        renewed = one.model_copy(
            update={
                "token": made.value,
                "obtained_at": run.world.now(),
                "expires_at": made.expires_at,
                "renewing": False,
            }
        )
        run.save(run.state.replacing(renewed))
        _into_config(run, renewed)
        done.append(f"renewed the token of runner #{one.id}")
    return done


def _into_config(run: UpRun, one: Registration) -> None:
    """Not by `run.write`: an undone change must not bring back a token that is dead."""
    text = run.world.disk.read(run.paths.config)
    document = parse_config(text or "")
    if not document:
        return
    for entry in document.get("runners") or []:
        if isinstance(entry, dict) and entry.get("id") == one.id:
            entry.update(token_keys(one))
            run.world.disk.write(run.paths.config, render_config(document), mode=0o600)


def token_keys(one: Registration) -> dict[str, Any]:
    """What config.toml says of a runner's token."""
    times = {"token_obtained_at": one.obtained_at, "token_expires_at": one.expires_at}
    return {"token": one.token} | {name: time.replace(microsecond=0) for name, time in times.items() if time}


def forget(gitlab: GitLab, one: Registration, now: datetime) -> Lost | None:
    """Delete a runner in GitLab: by its own token, or, where that is worthless, by what the user's token may do.

    Returns:
        The runner where GitLab may still have it, and no token at hand can tell; None where it is gone.

    Raises:
        RemoteError: GitLab failed.
    """
    if gitlab.delete(one.token):
        return None
    # Somebody deleted it, or the token is not its own any more.
    lost = Lost(
        url=one.url,
        runner_type=str(one.sent.get("runner_type", "project")),
        description=one.description,
        id=one.id,
    )
    if delete_lost(gitlab, lost, known=()) is not None:
        return None
    return lost if one.renewing or (one.expires_at is not None and one.expires_at <= now) else None


def delete_lost(gitlab: GitLab, lost: Lost, known: Collection[int]) -> int | None:
    """Delete a runner that is known by its number or its description alone; None where no token at hand may look.

    Args:
        gitlab: the one that has it.
        lost: the runner.
        known: runners of this box that may be called the same.

    Returns:
        How many were deleted: of an unanswered creation there may be none.

    Raises:
        RemoteError: GitLab failed.
    """
    found = gitlab.find(lost.runner_type, lost.description)
    if found is None:
        return None
    meant = [one for one in found if (one not in known if lost.id is None else one == lost.id)]
    for runner_id in meant:
        gitlab.delete_by_id(runner_id)
    return len(meant)
