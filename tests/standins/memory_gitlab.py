"""A GitLab in memory, as far as `up` and `down` ask it for runners."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime

from gpurig.provisioning.runner_spec import RunnerSpec
from gpurig.provisioning.runners import Created, NewToken


class MemoryGitLab:
    """Runners by id; `may_list` is a token of a wider scope than create_runner."""

    def __init__(self, online: Callable[[int], bool], *, may_list: bool = True) -> None:
        self.runners: dict[int, tuple[str, RunnerSpec]] = {}
        self.may_list = may_list
        self.expires_at: datetime | None = None
        self.expired: set[str] = set()
        self._online = online
        self._numbers = itertools.count(1)

    def check_token(self, spec: RunnerSpec) -> None:
        return

    def create(self, spec: RunnerSpec) -> Created:
        number = next(self._numbers)
        self.runners[number] = (f"glrt-{number:020}", spec)
        return Created(id=number, token=self.runners[number][0], expires_at=self.expires_at)

    def accepts(self, token: str) -> bool:
        return self._owner(token) is not None

    def _owner(self, token: str) -> int | None:
        found = (number for number, (known, _) in self.runners.items() if known == token)
        return None if token in self.expired else next(found, None)

    def change(self, runner_id: int, spec: RunnerSpec) -> bool:
        if not self.may_list or runner_id not in self.runners:
            return False
        assert self.runners[runner_id][1].place == spec.place, "GitLab cannot give a runner to somebody else"
        self.runners[runner_id] = (self.runners[runner_id][0], spec)
        return True

    def reset_token(self, token: str) -> NewToken | None:
        number = self._owner(token)
        if number is None:
            return None
        new = f"glrt-{number:010}-{next(self._numbers):09}"
        self.runners[number] = (new, self.runners[number][1])
        return NewToken(new, self.expires_at)

    def delete(self, token: str) -> bool:
        number = self._owner(token)
        if number is not None:
            del self.runners[number]
        return number is not None

    def online(self, runner_id: int) -> bool | None:
        return self._online(runner_id) if self.may_list else None

    def find(self, spec_type: str, description: str) -> tuple[int, ...] | None:
        if not self.may_list:
            return None
        return tuple(number for number, (_, spec) in self.runners.items() if spec.description == description)

    def delete_by_id(self, runner_id: int) -> None:
        self.runners.pop(runner_id, None)
