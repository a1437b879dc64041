"""A GitLab for the tests: a real HTTP server with the API that gpurig and a runner use. See ../README.md."""

from standins.gitlab.ci_config import ConfigError
from standins.gitlab.instance import GitLab
from standins.gitlab.jobs_api import trace_is_whole
from standins.gitlab.model import (
    DEVELOPER,
    MAINTAINER,
    OWNER,
    Group,
    Job,
    MergeRequest,
    Pipeline,
    Project,
    Runner,
    User,
)
from standins.gitlab.server import Exchange

__all__ = [
    "DEVELOPER",
    "MAINTAINER",
    "OWNER",
    "ConfigError",
    "Exchange",
    "GitLab",
    "Group",
    "Job",
    "MergeRequest",
    "Pipeline",
    "Project",
    "Runner",
    "User",
    "trace_is_whole",
]
