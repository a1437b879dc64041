"""A look at this box for `doctor` and `up --install-missing`: what was given, and what the last `up` remembered."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from gpurig.common.errors import ApplianceError, InputError
from gpurig.common.gitlab_api import checked_url
from gpurig.provisioning.disk import LocalDisk
from gpurig.provisioning.doctor import Examination, ThisBox, Wanted
from gpurig.provisioning.listen import split_listen
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.settings import RUNNER_IMAGE, RunnerType, Settings, check_name
from gpurig.provisioning.state import State, load_state
from gpurig.provisioning.versions import numbers
from gpurig.runner.up_run import with_rotated

# The options of `doctor` that the settings remember, by their names there.
_TEXTS = ("url", "docker_host", "metrics_listen", "runner_image", "helper_image")


@dataclass(frozen=True)
class Remembered:
    """What the last `up` left.

    Attributes:
        problem: why it could not be read; None where it could, or there is nothing.
    """

    state: State
    problem: ApplianceError | None = None


def remember(paths: Paths) -> Remembered:
    """Read the state; what keeps it from being read is kept as a value."""
    disk = LocalDisk()
    try:
        return Remembered(with_rotated(load_state(disk, paths), disk.read(paths.config)))
    except ApplianceError as error:
        return Remembered(State(), error)


def wanted_of(
    given: Mapping[str, Any],
    remembered: Remembered,
    *,
    paths: Paths,
    has_token: bool,
    base: Mapping[str, Any] | None = None,
) -> Wanted:
    """What the box is held against.

    Args:
        given: options by the settings' names; None means not given.
        remembered: what the last `up` left.
        paths: where its files are.
        has_token: a user's token is at hand.
        base: a settings file's content, which stands for what is remembered; None where there is no file.

    Raises:
        InputError: an option's value is wrong.
    """
    known = remembered.state.settings if base is None else base
    texts = {
        name: str(value) for name in _TEXTS for value in (given.get(name) or known.get(name),) if value is not None
    }
    if texts.get("url"):
        texts["url"] = checked_url(texts["url"])
    if texts.get("metrics_listen", "off") != "off":
        try:
            split_listen(texts["metrics_listen"])
        except ValueError as error:
            raise InputError(f"--metrics-listen: {error}", hint="gpurig doctor --help lists the options") from error
    if not texts.get("runner_image"):
        mirror = str(given.get("registry_mirror") or known.get("registry_mirror") or "")
        # Constructed and not judged: nothing else of it is known.
        texts["runner_image"] = Settings.model_construct(registry_mirror=mirror).from_mirror(RUNNER_IMAGE)
    if given.get("image_cuda") and not numbers(str(given["image_cuda"])):
        raise InputError("--cuda: that is no version", hint="write it like 13.0")
    cpu = given.get("cpu")
    whose = given if given.get("runner_type") else known
    problem = remembered.problem
    return Wanted(
        paths=paths,
        has_token=has_token,
        runner_type=_kind(whose),
        target=str(whose.get("target") or ""),
        ca_file=_ca_file(given.get("tls_ca_file"), known.get("tls_ca_file"), paths),
        service=(given.get("service") or known.get("service")) == "systemd",
        runner_binary=_program(given.get("runner_binary") or known.get("runner_binary")),
        cpu=bool(known.get("cpu")) if cpu is None else bool(cpu),
        set_up=bool(remembered.state.registrations),
        image_cuda=str(given.get("image_cuda") or ""),
        unread=problem.message if problem else "",
        unread_hint=problem.hint if problem else "",
        **{name: value for name, value in texts.items() if value},
    )


def _kind(values: Mapping[str, Any]) -> RunnerType | None:
    return next((one for one in get_args(RunnerType) if one == values.get("runner_type")), None)


def _program(path: object) -> Path | None:
    return Path(path) if isinstance(path, str | Path) and str(path) else None


def _ca_file(given: Path | None, known: object, paths: Paths) -> Path | None:
    if given is not None:
        return given
    if not isinstance(known, str) or not known:
        return None
    # The runner reads a copy; the file that was given may be gone by now.
    return paths.ca_file if paths.ca_file.exists() else Path(known)


@contextlib.contextmanager
def looking(
    given: Mapping[str, Any],
    *,
    name: str,
    root: Path,
    token: Callable[[], str | None],
    base: Mapping[str, Any] | None = None,
) -> Iterator[Callable[[], Examination]]:
    """Gives a function whose every call is a fresh look at this box.

    Raises:
        InputError: an option's value is wrong.
    """
    check_name(name)
    paths = Paths(root=root, name=name)
    secret = token()
    first = wanted_of(given, remember(paths), paths=paths, has_token=secret is not None, base=base)
    box = ThisBox(docker_host=first.docker_host, url=first.url, token=secret, ca_file=first.ca_file)

    def look() -> Examination:
        remembered = remember(paths)
        wanted = wanted_of(given, remembered, paths=paths, has_token=secret is not None, base=base)
        return Examination(box, wanted, remembered.state.registrations)

    try:
        yield look
    finally:
        box.close()
