"""lm-evaluation-harness on the inference engine: its model "gpurig".

lm-evaluation-harness has no entry points for models, and importing gpurig changes nothing in it: `register` does, and
`gpurig-job lm-eval` calls it.
"""

from __future__ import annotations

MODEL_NAME = "gpurig"


def register() -> None:
    """Let lm-evaluation-harness know the model "gpurig" in this process; a second call does nothing.

    Raises:
        ImportError: lm-evaluation-harness (extra `lm-eval`) is not installed.
    """
    from lm_eval.api.registry import model_registry  # noqa: PLC0415 - heavy

    if MODEL_NAME not in model_registry:
        model_registry.register(MODEL_NAME, target=f"{__name__}.model:GpurigLM")


__all__ = ["MODEL_NAME", "register"]
