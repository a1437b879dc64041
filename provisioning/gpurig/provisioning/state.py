"""What this box has in GitLab, remembered: runner ids, their tokens, and the settings of the last `up`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gpurig.common.errors import InputError
from gpurig.provisioning.disk import Disk
from gpurig.provisioning.paths import Paths

STATE_VERSION: Literal[1] = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Registration(_Part):
    """A runner in GitLab that this box made.

    Attributes:
        key: the entry it serves (plan.Entry.key).
        spec: RunnerSpec.digest of what it was created from, or changed to.
        url: the GitLab that has it.
        obtained_at, expires_at: of the token; `expires_at` is None where it never does.
        gpus: the GPUs that the entry owns, by their uuid.
        sent: RunnerSpec.document of what GitLab was told last.
        changing: GitLab was asked to change it, and the answer is not known.
        renewing: GitLab was asked for a new token, and the answer is not known.
    """

    key: str
    spec: str
    url: str
    id: int
    token: str = Field(repr=False)
    description: str
    tags: tuple[str, ...]
    obtained_at: datetime
    expires_at: datetime | None = None
    gpus: tuple[str, ...] = ()
    sent: dict[str, Any] = Field(default_factory=dict)
    changing: bool = False
    renewing: bool = False


class Intent(_Part):
    """A runner that is about to be created: found again in GitLab when the answer to the request was lost.

    Attributes:
        description: it names this box, so that no other box's runner is meant.
    """

    key: str
    url: str
    description: str


class Lost(_Part):
    """A runner that GitLab may still have, and that nobody here can delete: its token is lost or has run out.

    A token of a wider scope than create_runner can; the first `up` or `down` that is given one does.

    Attributes:
        runner_type: where GitLab lists it.
        description: it names this box, so that no other box's runner is meant.
        id: None where GitLab's answer to its creation was lost.
    """

    url: str
    runner_type: str
    description: str
    id: int | None = None

    def told(self) -> str:
        """What the user must know of it."""
        which = f'an unused runner "{self.description}"' if self.id is None else f"the runner #{self.id}"
        return (
            f"GitLab may still have {which}, whose token is lost: delete it there, or run gpurig up once with a token "
            "of scope api"
        )


class State(_Part):
    """The content of state.json.

    Attributes:
        registrations: the runners in use, one an entry.
        retired: runners that were replaced or are not wanted any more, and are still in GitLab.
        intents: runners of which it is not known whether GitLab created them.
        lost: runners that only a wider token can delete.
        images: the tags of the images that this instance had built or pulled, current and superseded.
        verified: by entry, what was proven by the last self-check (a digest of image, wiring and drivers).
        settings: of the last `up` that reached its end.
    """

    version: Literal[1] = STATE_VERSION
    registrations: tuple[Registration, ...] = ()
    retired: tuple[Registration, ...] = ()
    intents: tuple[Intent, ...] = ()
    lost: tuple[Lost, ...] = ()
    images: tuple[str, ...] = ()
    verified: dict[str, str] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)

    def registration(self, key: str) -> Registration | None:
        """The runner that serves an entry."""
        return next((one for one in self.registrations if one.key == key), None)

    def replacing(self, one: Registration) -> State:
        """The state in which `one` stands for the runner of its number."""
        return self.model_copy(
            update={"registrations": tuple(one if other.id == one.id else other for other in self.registrations)}
        )

    @property
    def empty(self) -> bool:
        """It says nothing about GitLab."""
        return not (self.registrations or self.retired or self.intents or self.lost)


def load_state(disk: Disk, paths: Paths) -> State:
    """The state; an empty one where there is no file.

    Raises:
        InputError: the file is not a state. PrerequisiteError: no permission to read it.
    """
    text = disk.read(paths.state)
    if text is None:
        return State()
    try:
        return State.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{paths.state} is damaged or of another version ({where}: {first['msg']})",
            hint="restore it from a backup, or delete the runners in GitLab, then this file, and run up again",
        ) from error


def save_state(disk: Disk, paths: Paths, state: State) -> None:
    """Write the state whole, for its owner's eyes only; its folder must be there.

    Nothing else is done here: between GitLab's answer and this write a runner's token is in no file.

    Raises:
        PrerequisiteError: it cannot be written.
    """
    disk.write(paths.state, state.model_dump_json(indent=1) + "\n", mode=0o600)
