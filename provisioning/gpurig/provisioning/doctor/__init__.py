"""Every prerequisite of a box, judged: what was found, what is needed, and the command that mends it."""

from gpurig.provisioning.distribution import Command
from gpurig.provisioning.doctor.box import Box, ThisBox
from gpurig.provisioning.doctor.examination import CHECKS, Check, Examination, examine
from gpurig.provisioning.doctor.finding import Finding, exit_code
from gpurig.provisioning.doctor.wanted import Wanted

__all__ = ["CHECKS", "Box", "Check", "Command", "Examination", "Finding", "ThisBox", "Wanted", "examine", "exit_code"]
