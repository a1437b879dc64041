"""The job images of this box for `gpurig images`: what was detected, what `up` remembers, what the options say."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from gpurig.common.errors import ApplianceError, InputError, PrerequisiteError
from gpurig.images.job_image import DEFAULT_BASE_IMAGE, plan_job_image
from gpurig.images.job_spec import DEFAULT_CPU_TARGET, JobImageSpec, Target, Wish, choose_job_image
from gpurig.images.plan import ImagePlan, Transport
from gpurig.provisioning.disk import LocalDisk
from gpurig.provisioning.docker_engine import DockerEngine
from gpurig.provisioning.facts import Backend, HostFacts
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.plan import backends_of
from gpurig.provisioning.settings import Settings, check_name, make_settings
from gpurig.provisioning.state import load_state

_BACKENDS: dict[str, Backend] = {"cuda": "cuda", "rocm": "rocm", "cpu": "cpu"}
_BOX_SETTINGS = ("base_image", "toolkit_image", "registry_mirror", "docker_host", "cpu")
_TRANSPORT = ("pip_index_url", "http_proxy", "https_proxy", "no_proxy", "build_ca_bundle")


class BoxImages:
    """What this box would build, and the engine it would build it on.

    Attributes:
        paths: where the box's files are.
        unread: why the settings of the last `up` do not count; "" where they do, or there are none.
    """

    def __init__(self, options: Mapping[str, Any], *, name: str, root: Path) -> None:
        """Put options and remembered settings together; nothing but the state is read.

        Args:
            options: by the names of images_options; one that is missing counts as not given.
            name: the instance's.
            root: where its files are.

        Raises:
            InputError: an option's value is wrong.
        """
        check_name(name)
        self.paths = Paths(root=root, name=name)
        self._options = {key: value for key, value in options.items() if value not in (None, "")}
        remembered, self.unread = self._remembered()
        known = {**remembered, **self._options}
        # Whose runner this box is, and where, plays no part in its images.
        values = {key: known[key] for key in _BOX_SETTINGS if key in known}
        self.settings: Settings = make_settings(
            {"url": "https://gitlab.example.com", "runner_type": "instance", "name": name, **values}
        )
        transport = {key: known[key] for key in _TRANSPORT if known.get(key)}
        if "build_ca_bundle" in transport:
            transport["build_ca_bundle"] = Path(transport["build_ca_bundle"])
        self.transport = Transport(**transport, netrc=self._options.get("netrc"))

    def _remembered(self) -> tuple[dict[str, Any], str]:
        try:
            return dict(load_state(LocalDisk(), self.paths).settings), ""
        except PrerequisiteError as error:
            # Who may use the engine need not be root, and the state is root's.
            return {}, error.message

    @functools.cached_property
    def host(self) -> HostFacts:
        """What this box has."""
        from gpurig.provisioning.detect import detect  # noqa: PLC0415 - heavy

        return detect()

    def engine(self) -> DockerEngine:
        """The engine; see engine.connect for what it raises."""
        return DockerEngine.connect(self.settings.docker_host or None)

    def specs(self) -> tuple[JobImageSpec, ...]:
        """The job images that the options mean: one for each backend of this box where they name none.

        Raises:
            InputError: options that do not go together.
            PrerequisiteError: a GPU is there and cannot be used, so that nobody can say what the box needs.
        """
        wish = self._wish()
        chosen = str(self._options.get("backend", "auto"))
        backends = (_backend(chosen),) if chosen != "auto" else self._backends(wish)
        # Where architectures are named, this box's cards play no part, and need not be looked for.
        gpus = () if wish.archs or backends == ("cpu",) else self.host.gpus
        return tuple(choose_job_image(one, gpus, wish) for one in backends)

    def _backends(self, wish: Wish) -> tuple[Backend, ...]:
        if wish.archs and wish.archs != ("all",):
            return tuple(dict.fromkeys("rocm" if one.startswith("gfx") else "cuda" for one in wish.archs))
        if wish.saas or wish.cuda_major:
            return ("cuda",)
        if wish.rocm:
            return ("rocm",)
        if not self.settings.cpu and not self.host.gpus:
            for problem in self.host.problems:
                if problem.unusable:
                    raise PrerequisiteError(
                        f"a GPU is there and cannot be used: {problem.message}",
                        hint=f"{problem.hint or 'gpurig doctor'}; or name the image: --backend cpu",
                    )
        return backends_of(self.host, self.settings)

    def _wish(self) -> Wish:
        return Wish(
            target=self._options.get("target", "eval"),
            saas=self._options.get("purpose") == "saas",
            archs=tuple(filter(None, (one.strip() for one in str(self._options.get("arch", "")).split(",")))),
            cuda_major=int(self._options.get("cuda_major", 0)),
            rocm=self._options.get("rocm", ""),
            cpu_target=self._options.get("cpu_target", DEFAULT_CPU_TARGET),
        )

    @property
    def exporter_base(self) -> str:
        """What the exporter's image stands on."""
        return self.settings.base_image or self.settings.from_mirror(DEFAULT_BASE_IMAGE)

    def plan(self, spec: JobImageSpec) -> ImagePlan:
        """How an image is built.

        Raises:
            InputError, PrerequisiteError: see job_image.plan_job_image.
        """
        return plan_job_image(
            spec,
            base_image=self.settings.base_image,
            toolkit_image=self.settings.toolkit_image,
            torch_index_url=self._options.get("torch_index_url", ""),
            from_mirror=self.settings.from_mirror,
            transport=self.transport,
        )

    def current_tags(self) -> frozenset[str]:
        """The tags of all that this box would build now, for both targets; none where that cannot be said."""
        tags = set()
        with contextlib.suppress(ApplianceError):
            for spec in self.specs():
                for target in get_args(Target):
                    tags.add(self.plan(dataclasses.replace(spec, target=target)).tag)
        return frozenset(tags)


def _backend(name: str) -> Backend:
    if name not in _BACKENDS:
        raise InputError(f"there is no backend {name!r}", hint="known: " + ", ".join(_BACKENDS))
    return _BACKENDS[name]
