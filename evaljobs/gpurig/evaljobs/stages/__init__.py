"""The stages generate, check and grade: each reads files, does what is missing, and appends to its own file."""

from gpurig.evaljobs.stages.checking import check
from gpurig.evaljobs.stages.generating import generate
from gpurig.evaljobs.stages.grading import calibrate, grade
from gpurig.evaljobs.stages.running import run_stages
from gpurig.evaljobs.stages.stage import RunSettings, StageOutcome

__all__ = ["RunSettings", "StageOutcome", "calibrate", "check", "generate", "grade", "run_stages"]
