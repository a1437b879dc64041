"""Fetching by name what no folder has: the last place in which a job looks for a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpurig.common.models.catalogue import load_catalogue
from gpurig.common.models.gitlab_packages import GitLabAccess
from gpurig.common.models.hub import HubAccess
from gpurig.common.models.licenses import Purpose
from gpurig.common.models.pulling import PullOptions, pull
from gpurig.common.models.resolving import Found
from gpurig.common.models.sources import Access, locate
from gpurig.common.models.transfer import Tools
from gpurig.common.terminal import size_text

# Entries of a site's own, beside the runner's configuration; a job image or a volume may carry it too.
SITE_CATALOGUE = Path("/etc/gpurig/models.toml")


@dataclass(frozen=True)
class Fetcher:
    """Pulls a catalogue's model into a folder.

    Attributes:
        folder: where to.
        catalogues: files with more entries than gpurig's own.
        allowed_licenses: names that the user accepts.
    """

    folder: Path
    access: Access
    tools: Tools
    catalogues: tuple[Path, ...] = ()
    allowed_licenses: tuple[str, ...] = ()
    purpose: Purpose = "eval"

    def __call__(self, name: str) -> Found | None:
        """The model `name`, pulled now; None where no catalogue has it.

        Raises:
            InputError: its license is not accepted. PrerequisiteError: offline, no room. RemoteError: its source fails.
        """
        catalogue = load_catalogue(self.catalogues)
        entry = catalogue.find(name)
        if entry is None:
            return None
        size = f", {size_text(entry.size_bytes)}" if entry.size_bytes else ""
        self.tools.say(f"this machine has no {name}: downloading it ({entry.source}{size}) into {self.folder}")
        options = PullOptions(allowed_licenses=self.allowed_licenses, purpose=self.purpose)
        done = pull(locate(name, catalogue, self.access), self.folder, options, self.tools)
        for note in done.notes:
            self.tools.say(note)
        return Found(name, tuple(file.path for file in done.files), "download", done.origin)


def site_catalogues(more: tuple[Path, ...] = (), *, site: Path = SITE_CATALOGUE) -> tuple[Path, ...]:
    """The catalogues beside gpurig's own: the site's where this user can see one, then those that the user names."""
    try:
        seen = site.is_file()
    except OSError:
        # The box keeps secrets beside it: only its owner gets past the folder.
        seen = False
    return (*((site,) if seen else ()), *more)


def job_access(environ: Mapping[str, str]) -> Access:
    """How a CI job reaches the sources: GitLab with its own token, by the variables that GitLab sets."""
    url, token = environ.get("CI_SERVER_URL"), environ.get("CI_JOB_TOKEN")
    ca_file = environ.get("CI_SERVER_TLS_CA_FILE")
    gitlab = GitLabAccess(url, job_token=token, ca_file=Path(ca_file) if ca_file else None) if url else None
    return Access(HubAccess(), gitlab)
