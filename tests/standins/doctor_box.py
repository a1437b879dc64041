"""A box for doctor's tests: everything that it can ask, as values; each call can be made to fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from gpurig.provisioning.distribution import Distribution
from gpurig.provisioning.doctor import Examination, Finding, Wanted, examine
from gpurig.provisioning.doctor.cdi import SpecSeen
from gpurig.provisioning.doctor.engine import EngineSeen
from gpurig.provisioning.doctor.exchange import Answer
from gpurig.provisioning.doctor.nodes import NodeSeen
from gpurig.provisioning.doctor.port import PortSeen
from gpurig.provisioning.doctor.runner_image import ImageSeen
from gpurig.provisioning.doctor.runner_program import ProgramSeen
from gpurig.provisioning.doctor.space import SpaceSeen
from gpurig.provisioning.doctor.toolkit import ToolkitSeen
from gpurig.provisioning.engine_facts import EngineFacts
from gpurig.provisioning.facts import DeviceNode, Gpu, HostFacts
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.runner_binary import RunnerBinary

URL = "https://gitlab.example.com"
DRIVER = "580.95.05"
CARD = Gpu(
    "cuda", "GPU-1", "NVIDIA GeForce RTX 4090", "0000:01:00.0", 24 * 2**30, arch="sm-89", driver=DRIVER, index="0"
)
RADEON = Gpu(
    "rocm",
    "amd-1",
    "Radeon RX 7900 XTX",
    "0000:0a:00.0",
    24 * 2**30,
    arch="gfx1100",
    nodes=(DeviceNode("/dev/kfd", 44), DeviceNode("/dev/dri/renderD128", 105)),
)
ENGINE = EngineFacts(
    address="unix:///var/run/docker.sock",
    version="28.5.1",
    cdi=True,
    cdi_devices=("nvidia.com/gpu=0", "nvidia.com/gpu=GPU-1", "nvidia.com/gpu=all"),
    cgroup_driver="systemd",
)
SPEC = SpecSeen(Path("/etc/cdi/nvidia.yaml"), "nvidia.com/gpu", ("0", "GPU-1", "all"), drivers=(DRIVER,))
VERSION = Answer(URL, status=200, document={"version": "19.4.0-ee"}, skew_s=0.3)
TOKEN = Answer(
    URL,
    status=200,
    document={"user_id": 7, "scopes": ["create_runner"], "active": True, "revoked": False, "expires_at": "2027-01-02"},
)
PROGRAM = ProgramSeen(RunnerBinary(Path("/usr/bin/gitlab-runner"), "19.4.0"), systemd=True)
WANTED = Wanted(
    Paths(),
    url=URL,
    runner_type="project",
    target="lab/llm",
    has_token=True,
    ca_file=Path("/ca.pem"),
    image_cuda="13.0",
    service=True,
    helper_image="helper:1",
)


@dataclass
class FixedBox:
    """A box on which all is well: an RTX 4090 and a Radeon, an engine with CDI, a GitLab with a good token.

    Attributes:
        failures: by method: what it raises instead.
        asked: which methods were called, in order.
    """

    where: Distribution = field(default_factory=lambda: Distribution("Debian GNU/Linux 12 (bookworm)", "debian"))
    host_facts: HostFacts = field(default_factory=lambda: HostFacts((CARD, RADEON), cuda_version="13.0"))
    engine_seen: EngineSeen = field(
        default_factory=lambda: EngineSeen(ENGINE, data_root=Path("/var/lib/docker"), installed=True)
    )
    toolkit_seen: ToolkitSeen = field(default_factory=lambda: ToolkitSeen(installed=True, version="1.18.0"))
    specs: tuple[SpecSeen, ...] = (SPEC,)
    free_bytes: int = 200 * 1000**3
    taken: str = ""
    listening: tuple[str, ...] = ()
    registry_problem: str = ""
    program_seen: ProgramSeen = PROGRAM
    version: Answer = VERSION
    token_answer: Answer = TOKEN
    answers: dict[str, Answer] = field(
        default_factory=lambda: {
            "/projects/lab%2Fllm/members/all/7": Answer(URL, status=200, document={"access_level": 40})
        }
    )
    at: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    failures: dict[str, Exception] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def _call(self, method: str) -> None:
        self.asked.append(method)
        if method in self.failures:
            raise self.failures[method]

    def distribution(self) -> Distribution:
        self._call("distribution")
        return self.where

    def user(self) -> str:
        self._call("user")
        return "ada"

    def now(self) -> datetime:
        self._call("now")
        return self.at

    def folders(self, paths: Paths) -> None:
        self._call("folders")

    def certificates(self, ca_file: Path) -> None:
        self._call("certificates")

    def host(self) -> HostFacts:
        self._call("host")
        return self.host_facts

    def engine(self) -> EngineSeen:
        self._call("engine")
        return self.engine_seen

    def toolkit(self) -> ToolkitSeen:
        self._call("toolkit")
        return self.toolkit_seen

    def cdi(self, folders: Sequence[Path]) -> tuple[SpecSeen, ...]:
        self._call("cdi")
        return self.specs

    def nodes(self, paths: Sequence[str]) -> tuple[NodeSeen, ...]:
        self._call("nodes")
        return tuple(NodeSeen(path, mode=0o660, gid=105, group="render", usable=True) for path in paths)

    def space(self, path: Path) -> SpaceSeen:
        self._call("space")
        return SpaceSeen(path, self.free_bytes, 500 * 1000**3)

    def port(self, listen: str) -> PortSeen:
        self._call("port")
        return PortSeen(listen, self.taken, "--metrics-listen" if self.taken else "")

    def exporters(self, name: str) -> tuple[str, ...]:
        self._call("exporters")
        return self.listening

    def image(self, name: str) -> ImageSeen:
        self._call("image")
        return ImageSeen(name, present=not self.registry_problem, problem=self.registry_problem)

    def runner_program(self, wanted: Path | None) -> ProgramSeen:
        self._call("runner_program")
        return self.program_seen

    def server(self) -> Answer:
        self._call("server")
        return self.version

    def token(self) -> Answer:
        self._call("token")
        return self.token_answer

    def ask(self, path: str) -> Answer:
        self._call("ask")
        return self.answers.get(path, Answer(URL, status=403))

    def examine(self, **wanted: object) -> dict[str, Finding]:
        """The findings by name; `wanted` changes what the box is held against."""
        at = Examination(self, replace(WANTED, **wanted))  # type: ignore[arg-type]  # the dataclass checks the names
        return {finding.name: finding for finding in examine(at)}
