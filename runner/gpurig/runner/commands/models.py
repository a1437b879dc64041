"""`gpurig models`: the box's models. Each command is a module of its own."""

from __future__ import annotations

from gpurig.common.lazy import LazyCommand, LazyGroup

_HERE = "gpurig.runner.commands"

COMMANDS = {
    "list": LazyCommand(f"{_HERE}.models_list:list_models", "Show the models that this box has."),
}

models = LazyGroup(
    name="models",
    lazy=COMMANDS,
    help="Show, pull and measure models in GGUF format.",
    epilog="Example: gpurig models list",
    no_args_is_help=True,
)
