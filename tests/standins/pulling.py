"""What the tests of `pull` share: a folder, tools without waiting, and models small enough to send often."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

from gpurig.common.models.catalogue import Catalogue
from gpurig.common.models.gitlab_packages import GitLabAccess
from gpurig.common.models.hub import HubAccess
from gpurig.common.models.pulling import Pulled, PullOptions, pull
from gpurig.common.models.sources import Access, locate
from gpurig.common.models.transfer import Tools
from gpurig.common.retrying import Patience

from standins.clocks import FakeClock
from standins.hub import Hub
from standins.tiny_gguf import write_tiny_gguf

REPO = "team/models-GGUF"
FILE = "tiny-q8_0.gguf"
NAME = "tiny-q8_0"


@dataclass
class Puller:
    """Somebody who pulls into `folder`."""

    folder: Path
    access: Access
    catalogue: Catalogue = field(default_factory=Catalogue)
    clock: FakeClock = field(default_factory=FakeClock)
    said: list[str] = field(default_factory=list)
    shown: io.StringIO = field(default_factory=io.StringIO)
    free: int = 2**40
    patience: Patience = field(default_factory=Patience)

    @classmethod
    def of_hub(cls, folder: Path, hub: Hub, *, read_s: float = 5.0) -> Puller:
        return cls(folder, Access(HubAccess(hub.url, connect_s=read_s, read_s=read_s)))

    @classmethod
    def of_gitlab(cls, folder: Path, access: GitLabAccess) -> Puller:
        return cls(folder, Access(HubAccess("http://127.0.0.1:1"), access))

    def pull(self, what: str = f"hf:{REPO}/{FILE}", **options: object) -> Pulled:
        tools = Tools(self.said.append, self.clock, self.patience, lambda _: self.free, self.shown)
        return pull(locate(what, self.catalogue, self.access), self.folder, PullOptions(**options), tools)  # type: ignore[arg-type]  # its fields

    @property
    def files(self) -> list[str]:
        """What the folder holds."""
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []

    @property
    def partials(self) -> list[Path]:
        return list(self.folder.glob(".*.partial"))


def model_bytes(folder: Path, *, seed: int = 1) -> bytes:
    """A sound model of some hundred kilobytes."""
    return write_tiny_gguf(folder / f"model-{seed}.gguf", seed=seed).read_bytes()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def in_place(puller: Puller, data: bytes) -> bool:
    """The model, its record, and nothing half made."""
    return (
        puller.files == [f"{NAME}.gguf", f"{NAME}.origin.json"]
        and (puller.folder / f"{NAME}.gguf").read_bytes() == data
    )
