"""Checks: each is one function and the model of its parameters, registered by the name a suite uses."""

from gpurig.evaljobs.checks.registry import CHECKS, Check, CheckSpec, parse_check, run_check
from gpurig.evaljobs.checks.subject import Answer

__all__ = ["CHECKS", "Answer", "Check", "CheckSpec", "parse_check", "run_check"]
