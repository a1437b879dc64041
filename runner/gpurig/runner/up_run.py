"""One run of `up`: what it knows so far, what it has made, and what it says."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpurig.provisioning.config_toml import parse_config, rotated_tokens
from gpurig.provisioning.containers import Engine
from gpurig.provisioning.engine_facts import EngineFacts
from gpurig.provisioning.facts import HostFacts
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.plan import Box, Plan
from gpurig.provisioning.runner_binary import RunnerBinary
from gpurig.provisioning.runners import GitLab
from gpurig.provisioning.settings import Settings, check_name, make_settings
from gpurig.provisioning.state import Registration, State, load_state, save_state
from gpurig.runner.undo import UndoLog
from gpurig.runner.world import Images, World


class UpRun:
    """The steps of one `up` share this; each fills in what later ones need.

    Attributes:
        changes: what was changed, in the words of the steps.
        notes: what the user should know at the end.
        image_ids: of every image that the plan names.
        binary: gitlab-runner's program, where it is to be a service.
    """

    host: HostFacts
    engine: Engine
    engine_facts: EngineFacts
    images: Images
    box: Box
    plan: Plan
    binary: RunnerBinary | None = None

    def __init__(
        self,
        world: World,
        settings: Settings,
        paths: Paths,
        *,
        say: Callable[[str, str], None],
        on_line: Callable[[str], None] = lambda _: None,
        drain_s: int | None = None,
        online_s: float = 30.0,
        archives: tuple[Path, ...] = (),
        prune: bool = False,
        pull: bool = False,
    ) -> None:
        """Prepare a run.

        Args:
            world: what it reaches out to.
            settings: what the user decided.
            paths: where files go.
            say: shows one step's line.
            on_line: gets every line of an image build.
            drain_s: seconds that running jobs may take to end where the runner must be restarted; what the settings say
                where None.
            online_s: seconds to wait for GitLab to hear from the runner.
            archives: files with images, for an engine that reaches no registry.
            pull: pull gitlab-runner's images also where they are there.
            prune: remove the images that this instance had built and needs no more.
        """
        self.world = world
        self.settings = settings
        self.paths = paths
        self.say = say
        self.on_line = on_line
        self.drain_s = settings.wait if drain_s is None else drain_s
        self.online_s = online_s
        self.archives = archives
        self.prune = prune
        self.pull = pull
        self.undo = UndoLog()
        self.changes: list[str] = []
        self.notes: list[str] = []
        self.image_ids: dict[str, str] = {}
        self.state = State()
        self.locks = contextlib.ExitStack()
        self._gitlabs: dict[str, GitLab] = {}

    def gitlab(self, url: str | None = None) -> GitLab:
        """The GitLab at `url`; the settings' where None."""
        where = url or self.settings.url
        if where not in self._gitlabs:
            self._gitlabs[where] = self.world.gitlab(where, self.settings.tls_ca_file)
        return self._gitlabs[where]

    def load(self) -> None:
        """Read the state, with the tokens that gitlab-runner has rotated since."""
        self.state = with_rotated(load_state(self.world.disk, self.paths), self.world.disk.read(self.paths.config))

    def save(self, state: State) -> None:
        """Make `state` the state, in memory first: what is undone after a failed write must know it."""
        self.state = state
        save_state(self.world.disk, self.paths, state)

    def make_directory(self, path: Path, *, mode: int) -> None:
        """Make a folder; undone, it and its new parents go again where they are empty."""
        for folder in reversed(self.world.disk.missing(path)):
            self.undo.push(f"removing {folder}", functools.partial(self.world.disk.remove_empty, folder))
        self.world.disk.make_directory(path, mode=mode)

    def write(self, path: Path, text: str, *, mode: int) -> bool:
        """Write a file unless it says `text` already; undone, the old content is back. Whether it changed."""
        before = self.world.disk.read(path)
        if before == text:
            return False

        def restore() -> None:
            if before is None:
                self.world.disk.remove(path)
            else:
                self.world.disk.write(path, before, mode=mode)

        self.undo.push(f"restoring {path}", restore)
        self.world.disk.write(path, text, mode=mode)
        return True


def with_rotated(state: State, config: str | None) -> State:
    """`state` with the tokens that config.toml has for its runners now."""
    tokens = rotated_tokens(parse_config(config or "") or {})

    def current(one: Registration) -> Registration:
        token, obtained_at, expires_at = tokens.get(one.id, (one.token, None, None))
        # The file is the older one where `up` had a token renewed and did not come to write it.
        if token == one.token or (obtained_at is not None and obtained_at < one.obtained_at.replace(microsecond=0)):
            return one
        return one.model_copy(
            update={"token": token, "obtained_at": obtained_at or one.obtained_at, "expires_at": expires_at}
        )

    return state.model_copy(update={"registrations": tuple(current(one) for one in state.registrations)})


def prepare(
    world: World,
    given: Mapping[str, Any],
    *,
    name: str,
    root: Path,
    say: Callable[[str, str], None],
    on_line: Callable[[str], None],
    drain_s: int | None = None,
    base: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    archives: tuple[Path, ...] = (),
    prune: bool = False,
    pull: bool = False,
) -> UpRun:
    """A run with what the user gave now.

    Where that is silent, the settings file counts (`base`), or, where there is none, what the last `up` remembered; the
    environment counts before the remembered settings and after the file.

    Raises:
        InputError: a value is missing or wrong, or the state is damaged.
    """
    # A wrong name must not choose a folder before it is refused.
    check_name(name)
    paths = Paths(root=root, name=name)
    remembered = load_state(world.disk, paths).settings
    before = {**remembered, **(environment or {})} if base is None else {**(environment or {}), **base}
    settings = make_settings(given, before)
    return UpRun(
        world, settings, paths, say=say, on_line=on_line, drain_s=drain_s, archives=archives, prune=prune, pull=pull
    )
