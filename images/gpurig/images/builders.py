"""The ways to build an image: BuildKit through `docker buildx`, and the classic builder that every engine has."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, Protocol

from gpurig.common.errors import ApplianceError, InputError, PrerequisiteError
from gpurig.common.process import run, stream
from gpurig.images.build_events import BuildEvent, ClassicOutput, PlainOutput, clean
from gpurig.images.plan import ImagePlan
from gpurig.images.secret_mounts import with_secret_mounts
from gpurig.provisioning.engine import translated

if TYPE_CHECKING:
    import docker

BuilderName = Literal["auto", "buildkit", "classic"]

_LOOK_S = 20
# Where the CLI reads a secret from; it shows in nobody's list of processes.
_SECRET_VARIABLE = "GPURIG_BUILD_SECRET_{}"  # noqa: S105 - a name, no secret


class Builder(Protocol):
    """Builds a planned image on an engine."""

    name: str

    def refusal(self, plan: ImagePlan) -> ApplianceError | None:
        """Why this builder cannot build that plan safely; None where it can."""

    def build(self, plan: ImagePlan, note: Callable[[BuildEvent], None]) -> str:
        """Build it; the builder's own words where that failed, "" where not.

        What `note` raises ends the build, on the engine too.
        """


class ClassicBuilder:
    """The builder inside the engine, through its API: one step after the other, an image for each."""

    name = "classic"

    def __init__(self, client: docker.DockerClient) -> None:
        """Build on that engine."""
        self._client = client

    def refusal(self, plan: ImagePlan) -> ApplianceError | None:
        """It has no secrets: whatever reaches a step stays in one of its images."""
        if not plan.secrets:
            return None
        return InputError(
            "the package index wants a password, and the classic builder would keep it in an image",
            hint="install docker buildx (Debian: docker-buildx or docker-buildx-plugin; Docker Engine 23 or newer), "
            "or use an index that lets this machine in without",
        )

    def build(self, plan: ImagePlan, note: Callable[[BuildEvent], None]) -> str:
        """Build it through the SDK; the closed connection of an interrupted build ends it on the engine."""
        import docker.errors  # noqa: PLC0415 - heavy
        import requests  # noqa: PLC0415
        import urllib3  # noqa: PLC0415

        output = ClassicOutput()
        error = ""
        try:
            events: Iterator[Mapping[str, Any]] = self._client.api.build(
                fileobj=BytesIO(plan.context),
                custom_context=True,
                dockerfile=plan.dockerfile,
                tag=plan.tag,
                target=plan.target or None,
                buildargs={**plan.build_args, **plan.private_args},
                labels=dict(plan.labels),
                rm=True,
                forcerm=True,
                decode=True,
            )
            said = _Lines()
            for event in events:
                error = clean(str(event.get("error", "")))
                for line in said.of(event):
                    for found in output.feed(line):
                        note(found)
                if error:
                    break
        # docker-py reads the stream below requests, so an engine that goes away shows as urllib3's error.
        except (
            docker.errors.DockerException,
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
        ) as failed:
            error = clean(" ".join(str(getattr(failed, "explanation", None) or failed).split()))
        for found in output.end(failed=bool(error)):
            note(found)
        return error


class _Lines:
    """The readable lines of the engine's build stream, which cuts a line where the program's writing paused."""

    def __init__(self) -> None:
        self._begun = ""

    def of(self, event: Mapping[str, Any]) -> Iterator[str]:
        """The lines that an event ends; a pull's progress bars are left out."""
        if "status" in event and "progress" not in event:
            yield clean(" ".join(str(event[key]) for key in ("id", "status") if event.get(key)))
        *whole, self._begun = (self._begun + str(event.get("stream", ""))).replace("\r", "\n").split("\n")
        if "stream" not in event and self._begun:
            whole, self._begun = [*whole, self._begun], ""
        for line in whole:
            if cleaned := clean(line):
                yield cleaned


class BuildKitBuilder:
    """BuildKit inside the engine, through the CLI's plugin: stages beside each other, secrets that stay in no layer."""

    name = "buildkit"

    def __init__(self, address: str) -> None:
        """Build on the engine that listens at `address`."""
        self.address = address

    def refusal(self, plan: ImagePlan) -> ApplianceError | None:
        """It writes every build argument into the engine's record of builds."""
        if not plan.private_args:
            return None
        return InputError(
            "the proxy wants a password, and BuildKit would keep it in the engine's record of builds",
            hint="--builder classic keeps it in no image and no record; or use a proxy that needs none",
        )

    def build(self, plan: ImagePlan, note: Callable[[BuildEvent], None]) -> str:
        """Build it; the CLI that is asked to end cancels the build on the engine."""
        output = PlainOutput()

        def read(line: str) -> None:
            for part in line.split("\r"):
                for event in output.feed(clean(part)):
                    note(event)

        with tempfile.TemporaryDirectory(prefix="gpurig-buildx-") as folder:
            variables = {_SECRET_VARIABLE.format(name.upper()): text for name, text in plan.secrets.items()}
            code = stream(
                self.command(plan),
                on_line=read,
                stdin=with_secret_mounts(plan.context, plan.dockerfile),
                # Its own records go to a folder of ours; the attestation would name every build argument.
                env={**os.environ, "BUILDX_CONFIG": folder, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1", **variables},
            )
        return output.error or (f"docker buildx ended with {code}" if code else "")

    def command(self, plan: ImagePlan) -> list[str]:
        """The program's arguments: the engine's own builder, whatever the user has chosen for other builds."""
        words = ["docker", "--host", self.address, "buildx", "build", "--builder", "default", "--progress", "plain"]
        words += ["--file", plan.dockerfile, "--tag", plan.tag]
        if plan.target:
            words += ["--target", plan.target]
        for name, value in plan.build_args.items():
            words += ["--build-arg", f"{name}={value}"]
        for name, value in plan.labels.items():
            words += ["--label", f"{name}={value}"]
        for name in plan.secrets:
            words += ["--secret", f"id={name},env={_SECRET_VARIABLE.format(name.upper())}"]
        return [*words, "-"]


def available_builders(client: docker.DockerClient) -> tuple[Builder, ...]:
    """The builders that work with that engine, the better one first.

    Raises:
        PrerequisiteError: the engine does not answer.
    """
    classic = ClassicBuilder(client)
    address = _address(client)
    if not address or not _has_buildkit(client) or not _has_plugin():
        return (classic,)
    return (BuildKitBuilder(address), classic)


def _address(client: docker.DockerClient) -> str:
    """Where the client's engine listens: `docker buildx` must find the same one. "" where that is no Unix socket."""
    path = getattr(client.api.get_adapter(client.api.base_url), "socket_path", "")
    return f"unix://{path}" if path else ""


def _has_buildkit(client: docker.DockerClient) -> bool:
    """Whether the engine's own answer prefers BuildKit (23.0 and newer do; 20.10 has it only half)."""
    with translated("asking the engine for its builder"):
        # docker-py's ping() gives the body alone.
        answer = client.api.head(f"{client.api.base_url}/_ping")
        return str(answer.headers.get("Builder-Version", "")) == "2"


def _has_plugin() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        return run(["docker", "buildx", "version"], timeout_s=_LOOK_S).code == 0
    except PrerequisiteError:
        return False


def choose_builder(available: Sequence[Builder], plan: ImagePlan, wanted: BuilderName = "auto") -> Builder:
    """The first builder that may build the plan, or the one that is wanted.

    Raises:
        PrerequisiteError: the wanted one is not available.
        InputError: none, or not the wanted one, can build the plan without leaving a secret behind.
    """
    known = [one for one in available if wanted in {"auto", one.name}]
    if not known:
        raise PrerequisiteError(
            f"the builder {wanted} is not available here",
            hint="it needs Docker Engine 23 or newer and the plugin docker buildx (docker buildx version)",
        )
    refusals = []
    for one in known:
        refusal = one.refusal(plan)
        if refusal is None:
            return one
        refusals.append(refusal)
    raise refusals[-1]


def chooser(client: docker.DockerClient, wanted: BuilderName = "auto") -> Callable[[ImagePlan], Builder]:
    """Chooses a plan's builder on that engine; nothing is looked at before it is called.

    What it returns raises as `available_builders` and `choose_builder` do.
    """
    return lambda plan: choose_builder(available_builders(client), plan, wanted)
