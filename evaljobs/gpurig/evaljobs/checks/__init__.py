"""Checks: each is one function and the model of its parameters, registered by the name a suite uses."""

from gpurig.evaljobs.checks.catalogue import CHECKS
from gpurig.evaljobs.checks.kind import Check
from gpurig.evaljobs.checks.registry import CheckSpec, parse_check, run_check
from gpurig.evaljobs.checks.subject import Answer, Finding

__all__ = ["CHECKS", "Answer", "Check", "CheckSpec", "Finding", "parse_check", "run_check"]
