"""All checks, in the order in which one mends: each a name, what it looks at, and a pure judgement of that."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gpurig.common.errors import ApplianceError
from gpurig.provisioning.distribution import Distribution
from gpurig.provisioning.doctor import (
    cdi,
    engine,
    gpu,
    nodes,
    port,
    runner_image,
    runner_program,
    server,
    space,
    toolkit,
    user_token,
    wired,
)
from gpurig.provisioning.doctor.box import Box
from gpurig.provisioning.doctor.exchange import Answer
from gpurig.provisioning.doctor.finding import Area, Finding
from gpurig.provisioning.doctor.wanted import Wanted
from gpurig.provisioning.engine_facts import EngineFacts
from gpurig.provisioning.facts import Backend, Gpu, HostFacts
from gpurig.provisioning.state import Registration

T = TypeVar("T")


class UnseenError(Exception):
    """Something could not be looked at, and a check needs it.

    Attributes:
        what: the name of the check that looks at it.
        message: why.
    """

    def __init__(self, what: str, message: str, hint: str = "") -> None:
        """Keep the reason."""
        super().__init__(message)
        self.what = what
        self.message = message
        self.hint = hint


class Examination:
    """One look at a box; everything is looked at once, when the first check needs it.

    What failed once fails for every check that needs it, without asking again.
    """

    def __init__(self, box: Box, wanted: Wanted, registrations: Iterable[Registration] = ()) -> None:
        """Look at nothing yet."""
        self.box = box
        self.wanted = wanted
        self.registrations = tuple(registrations)
        self._seen: dict[str, Any] = {}

    def _once(self, what: str, look: Callable[[], T]) -> T:
        if what not in self._seen:
            try:
                self._seen[what] = look()
            except ApplianceError as error:
                self._seen[what] = UnseenError(what, error.message, error.hint)
            except OSError as error:
                self._seen[what] = UnseenError(what, error.strerror or str(error) or type(error).__name__)
        found = self._seen[what]
        if isinstance(found, UnseenError):
            raise found
        return found  # type: ignore[no-any-return]  # what `look` gave

    @property
    def where(self) -> Distribution:
        """The distribution; an unknown one where it cannot be read."""
        try:
            return self._once("distribution", self.box.distribution)
        except UnseenError:
            return Distribution()

    @property
    def host(self) -> HostFacts:
        """The GPUs."""
        return self._once("gpu", self.box.host)

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that jobs are meant to get."""
        return () if self.wanted.cpu else self.host.gpus

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The backends that job images are made for."""
        return tuple(dict.fromkeys(one.backend for one in self.gpus)) or ("cpu",)

    @property
    def engine(self) -> engine.EngineSeen:
        """The engine, as far as it answers."""
        return self._once("engine", self.box.engine)

    @property
    def facts(self) -> EngineFacts:
        """What the engine can do; UnseenError where it does not answer."""
        facts = self.engine.facts
        if facts is None:
            raise UnseenError("engine", self.engine.problem, self.engine.hint)
        return facts

    @property
    def facts_if_seen(self) -> EngineFacts | None:
        """The same, None where it does not answer."""
        try:
            return self.facts
        except UnseenError:
            return None

    @property
    def server(self) -> Answer | None:
        """GitLab's answer; None where nobody said which GitLab."""
        return self._once("gitlab", self.box.server) if self.wanted.url else None

    def look(self, what: str, ask: Callable[[], T]) -> T:
        """Ask the box something that one check needs."""
        return self._once(what, ask)


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: its findings' name.
        area: whose turn it is when it cannot be made.
        judge: looks at what it needs, and judges it.
    """

    name: str
    area: Area
    judge: Callable[[Examination], tuple[Finding, ...]]


def _settings(at: Examination) -> tuple[Finding, ...]:
    if at.wanted.unread:
        hint = at.wanted.unread_hint
        return (Finding("settings", "failed", at.wanted.unread, found="unreadable", hint=hint),)
    message = f"of the last up, from {at.wanted.paths.state}" if at.wanted.set_up else "this box is not set up yet"
    return (Finding("settings", "ok", message),)


def _folders(at: Examination) -> tuple[Finding, ...]:
    at.look("folders", lambda: at.box.folders(at.wanted.paths))
    found = f"{at.wanted.paths.config_dir}, {at.wanted.paths.data_dir}"
    return (Finding("folders", "ok", "can be written to", found=found),)


def _ca_file(at: Examination) -> tuple[Finding, ...]:
    path = at.wanted.ca_file
    if path is None:
        return (Finding("ca file", "skipped", "none was given"),)
    at.look("ca file", lambda: at.box.certificates(path))
    return (Finding("ca file", "ok", "holds certificates", found=str(path)),)


def _toolkit(at: Examination) -> tuple[Finding, ...]:
    wanted = bool(gpu.nvidia(at.host, cpu=at.wanted.cpu))
    seen = at.look("toolkit", at.box.toolkit) if wanted else toolkit.ToolkitSeen(installed=False)
    return toolkit.judge(seen, wanted=wanted, engine=at.facts_if_seen, where=at.where)


def _cdi(at: Examination) -> tuple[Finding, ...]:
    cards = gpu.nvidia(at.host, cpu=at.wanted.cpu)
    folders = at.engine.cdi_folders if at.facts_if_seen is not None else ()
    specs = at.look("cdi spec", lambda: at.box.cdi(folders or cdi.DEFAULT_FOLDERS)) if cards else ()
    return _with_toolkit(at, cdi.judge(specs, cards, at.facts_if_seen))


def _wiring(at: Examination) -> tuple[Finding, ...]:
    if not at.gpus:
        return (Finding("gpu wiring", "skipped", "no GPU for jobs"),)
    return _with_toolkit(at, wired.judge(at.gpus, at.facts, at.where))


def _hazard(at: Examination) -> tuple[Finding, ...]:
    if not gpu.nvidia(at.host, cpu=at.wanted.cpu):
        return (Finding("cgroup driver", "skipped", "no NVIDIA GPU"),)
    return wired.judge_hazard(at.gpus, at.facts)


def _with_toolkit(at: Examination, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Commands of nvidia-ctk are for hands only where nothing could have installed it before."""
    if not any(one.argv[0] == "nvidia-ctk" for finding in findings for one in finding.commands):
        return findings
    if at.where.install("toolkit") or at.look("toolkit", at.box.toolkit).installed:
        return findings
    return tuple(
        replace(finding, commands=tuple(replace(one, by_hand=True) for one in finding.commands)) for finding in findings
    )


def _nodes(at: Examination) -> tuple[Finding, ...]:
    paths = nodes.paths_of(at.gpus)
    seen = at.look("amd devices", lambda: at.box.nodes(paths)) if paths else ()
    return nodes.judge(seen, at.gpus, user=at.look("user", at.box.user) if paths else "")


def _image_space(at: Examination) -> tuple[Finding, ...]:
    _ = at.facts
    root = at.engine.data_root
    if root is None:
        return (Finding("image space", "skipped", "the engine does not say where it keeps images"),)
    seen = at.look("image space", lambda: at.box.space(root))
    return space.judge_images(seen, at.backends, set_up=at.wanted.set_up)


def _model_space(at: Examination) -> tuple[Finding, ...]:
    seen = at.look("model space", lambda: at.box.space(at.wanted.paths.models))
    return space.judge_models(seen, set_up=at.wanted.set_up)


def _port(at: Examination) -> tuple[Finding, ...]:
    listen = at.wanted.metrics_listen
    if listen == "off":
        return port.judge(port.PortSeen(listen), ())
    seen = at.look("metrics port", lambda: at.box.port(listen))
    # A free port needs no engine to be judged.
    ours: tuple[str, ...] = ()
    if seen.problem and at.facts_if_seen is not None:
        ours = at.look("metrics port: ours", lambda: at.box.exporters(at.wanted.paths.name))
    return port.judge(seen, ours)


def _runner_program(at: Examination) -> tuple[Finding, ...]:
    if not at.wanted.service:
        return (Finding("gitlab-runner", "skipped", "its container is used (--service systemd: its package)"),)
    seen = at.look("gitlab-runner", lambda: at.box.runner_program(at.wanted.runner_binary))
    return runner_program.judge(seen, at.where)


def _runner_image(at: Examination) -> tuple[Finding, ...]:
    _ = at.facts
    image = "" if at.wanted.service else at.wanted.runner_image
    names = [name for name in (image, at.wanted.helper_image) if name]
    if not names:
        return (Finding("runner image", "skipped", "systemd runs gitlab-runner's package", area="gitlab"),)
    return runner_image.judge([at.look(f"image {name}", lambda name=name: at.box.image(name)) for name in names])  # type: ignore[misc]  # a lambda's default has no type


def _gitlab(at: Examination) -> tuple[Finding, ...]:
    answer = at.server
    return server.unasked(server.NO_URL) if answer is None else server.judge(answer)


def _version(at: Examination) -> tuple[Finding, ...]:
    if at.server is not None and not at.wanted.has_token and at.server.status == 401:
        finding = server.judge_version(None)[0]
        return (replace(finding, message="GitLab tells it only to a token: give --token-file"),)
    return server.judge_version(at.server)


def _clock(at: Examination) -> tuple[Finding, ...]:
    return server.judge_clock(at.server, at.where)


def _tokenless(at: Examination) -> str:
    """Why GitLab is not asked about the user's token; "" where it is."""
    if not at.wanted.url:
        return server.NO_URL
    if not at.wanted.has_token:
        return "no token was given"
    answer = at.server
    unreached = answer is None or any(one.status == "failed" for one in server.judge(answer))
    return "GitLab was not reached" if unreached else ""


def _token(at: Examination) -> tuple[Finding, ...]:
    today = at.look("now", at.box.now).date()
    skipped = _tokenless(at)
    return user_token.judge(None if skipped else at.look("token", at.box.token), today, skipped=skipped)


def _role(at: Examination) -> tuple[Finding, ...]:
    skipped = _tokenless(at)
    token = None if skipped else at.look("token", at.box.token)

    def ask(path: str) -> Answer:
        return at.look(f"role: {path}", lambda: at.box.ask(path))

    return user_token.judge_role(at.wanted.runner_type, at.wanted.target, token, ask, skipped=skipped)


CHECKS = (
    Check("settings", "box", _settings),
    Check("folders", "box", _folders),
    Check("engine", "box", lambda at: engine.judge(at.engine, at.where, other=at.wanted.docker_host)),
    Check("gpu", "box", lambda at: gpu.judge(at.host, cpu=at.wanted.cpu)),
    Check(
        "driver",
        "box",
        lambda at: gpu.judge_driver(at.host, at.wanted.image_cuda, at.where, cpu=at.wanted.cpu),
    ),
    Check("toolkit", "box", _toolkit),
    Check("cdi spec", "box", _cdi),
    Check("gpu wiring", "box", _wiring),
    Check("cgroup driver", "box", _hazard),
    Check("amd devices", "box", _nodes),
    Check("image space", "box", _image_space),
    Check("model space", "box", _model_space),
    Check("metrics port", "box", _port),
    Check("gitlab-runner", "box", _runner_program),
    Check("clock", "box", _clock),
    Check("ca file", "box", _ca_file),
    Check("gitlab", "gitlab", _gitlab),
    Check("gitlab version", "gitlab", _version),
    Check("token", "gitlab", _token),
    Check("token role", "gitlab", _role),
    Check(
        "runner tokens",
        "gitlab",
        lambda at: user_token.judge_runners(at.registrations, at.look("now", at.box.now)),
    ),
    Check("runner image", "gitlab", _runner_image),
)


def examine(at: Examination, checks: Iterable[Check] = CHECKS) -> tuple[Finding, ...]:
    """Make the checks; nothing that can go wrong with a box makes this raise."""
    findings: list[Finding] = []
    for check in checks:
        findings += _made(check, at)
    return tuple(findings)


def _made(check: Check, at: Examination) -> tuple[Finding, ...]:
    try:
        return check.judge(at)
    except UnseenError as error:
        if error.what in {one.name for one in CHECKS} and error.what != check.name:
            return (Finding(check.name, "skipped", f"not known without: {error.what}", area=check.area),)
        return (Finding(check.name, "failed", error.message, hint=error.hint, area=check.area),)
