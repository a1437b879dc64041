"""A real server of a tiny model, in threads of the test's process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpurig.common.models.resolving import Search
from gpurig.evaljobs.adapters import loaded_once, with_adapters
from gpurig.evaljobs.models import AdapterFile, open_model
from gpurig.evaljobs.options import ModelOptions
from gpurig.evaljobs.serving.naming import ModelNames
from gpurig.evaljobs.serving.server import ServeOptions, Server

from standins.tiny_gguf import write_tiny_gguf

KEY = "a-key-for-the-tests-only"
TEMPLATE = (
    "{% if tools %}<tool_call> {{ tools | tojson }}\n{% endif %}"
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"
)


def write_served(path: Path, *, context: int = 512) -> Path:
    """A tiny model with a chat template, so sure of its words that rounding does not change them."""
    return write_tiny_gguf(path, chat_template=TEMPLATE, sharpness=16.0, context=context)


@contextlib.contextmanager
def serving(
    path: Path, *, models: ModelOptions | None = None, adapters: Sequence[AdapterFile] = (), **options: Any
) -> Iterator[Server]:
    """Serve a model as "tiny"."""
    model = open_model(str(path), search=Search.of_folders(), suite_folder=Path())
    model = loaded_once(with_adapters(model, [one]) for one in adapters) if adapters else model
    told = ServeOptions(**{"names": ModelNames(("tiny",)), "keys": (KEY,), "grace_s": 5, **options})
    with Server(model, models or ModelOptions(threads=1, parallel=8), told) as server:
        yield server
