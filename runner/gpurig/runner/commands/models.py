"""`gpurig models`: the box's models. Each command is a module of its own."""

from __future__ import annotations

from gpurig.common.lazy import LazyCommand, LazyGroup

_HERE = "gpurig.runner.commands"

COMMANDS = {
    "pull": LazyCommand(
        f"{_HERE}.models_pull:pull", "Fetch a model, verified; run again, it goes on where it broke off."
    ),
    "quantize": LazyCommand(f"{_HERE}.models_quantize:quantize", "Quantize a model, and say what that costs."),
    "list": LazyCommand(f"{_HERE}.models_list:list_models", "Show the models that are here, and what a pull brings."),
    "fit": LazyCommand(f"{_HERE}.models_fit:fit", "Tell whether a model fits on a GPU, before it is fetched."),
}

models = LazyGroup(
    name="models",
    lazy=COMMANDS,
    help="Show, pull and measure models in GGUF format.",
    epilog="Example: gpurig models pull qwen3-4b-q4_k_m",
    no_args_is_help=True,
)
