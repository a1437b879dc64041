"""`gpurig-job` serve and with-model."""

from __future__ import annotations

import functools
import os
import secrets
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.terminal import harmless
from gpurig.common.waiting import wait_for
from gpurig.evaljobs.options import ModelOptions, model_options

if TYPE_CHECKING:
    from gpurig.evaljobs.models import AdapterFile, ModelFile
    from gpurig.evaljobs.serving.server import Server

_LOOK_S = 3600.0
_SERVING_OPTIONS = (
    click.option(
        "--name",
        "names",
        multiple=True,
        metavar="NAME",
        help="What clients call the model, beside MODEL itself; may be repeated.",
    ),
    click.option(
        "--adapter",
        "adapters",
        multiple=True,
        metavar="NAME=PATH[:SCALE]",
        help="A LoRA adapter; clients choose it by the model's name, a colon and NAME. May be repeated.",
    ),
    click.option(
        "--context",
        type=click.IntRange(16, 2**20),
        metavar="N",
        help="Tokens of prompt and answer together; if absent what the model was trained for, at most 4096.",
    ),
    click.option(
        "--chat-template",
        "template",
        type=click.Path(path_type=Path, dir_okay=False),
        help="A Jinja2 file instead of the model's own chat template.",
    ),
    click.option("--max-prompt-tokens", "prompt_tokens", type=click.IntRange(1), metavar="N", help="Of a prompt."),
    click.option("--max-tokens", "answer_tokens", type=click.IntRange(1), metavar="N", help="Of an answer."),
    click.option(
        "--max-waiting",
        "waiting",
        type=click.IntRange(1),
        default=256,
        show_default=True,
        metavar="N",
        help="Answers that are under way at the same time; more are refused with 429.",
    ),
    click.option("--embeddings", is_flag=True, help="Embed texts (/v1/embeddings) instead of writing them."),
    click.option(
        "--max-body",
        "body_bytes",
        type=click.IntRange(1024, 2**30),
        default=4 * 1024 * 1024,
        show_default=True,
        metavar="BYTES",
        help="Of a request.",
    ),
)


def _serving_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of both; the command gets them as `serving`, for ServeOptions."""
    limits = ("context", "prompt_tokens", "answer_tokens", "waiting", "body_bytes")
    names = ("names", "adapters", "template", "embeddings", *limits)

    @functools.wraps(command)
    def with_serving(**options: Any) -> Any:
        serving = {name: options.pop(name) for name in names}
        return command(**options, serving=serving)

    wrapped: Callable[..., Any] = with_serving
    for add in reversed(_SERVING_OPTIONS):
        wrapped = add(wrapped)
    return wrapped


@click.command(
    epilog="Example: gpurig-job serve qwen3-8b-q4_k_m --port 8000, then in another terminal: "
    "curl http://127.0.0.1:8000/v1/models"
)
@click.argument("model")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option(
    "--api-key-file",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file with API keys, one a line; if absent the variable GPURIG_SERVE_API_KEY may hold one.",
)
@click.option("--insecure", is_flag=True, help="Let other machines ask without a key.")
@click.option(
    "--grace",
    "grace_s",
    type=click.IntRange(0, 3600),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="What running answers have to finish in, once the server is told to stop.",
)
@_serving_options
@model_options
def serve(
    *,
    model: str,
    host: str,
    port: int,
    key_file: Path | None,
    insecure: bool,
    grace_s: int,
    serving: Mapping[str, Any],
    models: ModelOptions,
) -> None:
    """Serve a model with OpenAI's interface.

    MODEL is a model's name or the path of a GGUF file. Clients take http://HOST:PORT/v1 as base URL. The port opens
    when the model is loaded. SIGTERM and Ctrl-C stop it, after running answers. docs/serving.md tells
    what is supported.
    """
    from gpurig.evaljobs.serving.access import is_loopback, read_keys  # noqa: PLC0415 - heavy

    keys = read_keys(key_file, os.environ)
    if not keys and not is_loopback(host) and not insecure:
        raise InputError(
            f"without an API key nobody but this machine may ask, and other machines reach {host}",
            hint="give --api-key-file or GPURIG_SERVE_API_KEY, or --insecure where the network is trusted",
        )
    server = _server(model, models, {**serving, "host": host, "port": port, "keys": keys, "grace_s": grace_s})
    with server:
        click.echo(
            f"serving {harmless(model)} at {server.url}: {server.parallel} answers at a time, context "
            f"{server.context}, {'with' if keys else 'no'} API key",
            err=True,
        )
        with _told_to_stop() as stop:
            while not wait_for(lambda: stop() or not server.runs, timeout_s=_LOOK_S):
                pass
    if server.failure is not None:
        raise server.failure


@click.command(
    "with-model", epilog="Example: gpurig-job with-model qwen3-8b-q4_k_m -- promptfoo eval -c promptfoo.yaml"
)
@click.argument("model")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_serving_options
@model_options
@click.pass_context
def with_model(
    context: click.Context,
    /,
    *,
    model: str,
    command: tuple[str, ...],
    serving: Mapping[str, Any],
    models: ModelOptions,
) -> None:
    """Run a command beside a server of a model.

    The command finds the server by OPENAI_BASE_URL and OPENAI_API_KEY; its exit code is this one's. The server stops
    when the command ends. Exits with 4 where the model is missing or the engine fails.
    """
    from gpurig.common.process import attend  # noqa: PLC0415 - starts programs

    key = secrets.token_urlsafe(32)
    server = _server(model, models, {**serving, "keys": (key,), "grace_s": 1})
    with server:
        code = attend(command, env=_environment(os.environ, server.url, key), needed=lambda: server.failure is None)
    if server.failure is not None:
        raise PrerequisiteError(
            f"the engine failed, and {command[0]} was ended: {server.failure.message}", hint=server.failure.hint
        )
    context.exit(code)


def _server(model: str, models: ModelOptions, options: Mapping[str, Any]) -> Server:
    from gpurig.evaljobs.adapters import loaded_once, open_adapter, with_adapters  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.engine import beyond_training  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.models import open_model  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.serving.naming import ModelNames, adapter_option  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.serving.server import ServeOptions, Server  # noqa: PLC0415 - heavy

    if options["embeddings"] and (options["prompt_tokens"] or options["answer_tokens"]):
        raise InputError(
            "--max-prompt-tokens and --max-tokens are for a server that writes",
            hint="--context bounds an embedded text",
        )
    if options["embeddings"] and _written("prefix_cache"):
        raise InputError("--prefix-cache is for a server that writes", hint="leave it out")
    if options["embeddings"] and options["adapters"]:
        raise InputError("--adapter is for a server that writes", hint="leave --adapter or --embeddings out")
    search = models.search()
    file: ModelFile = open_model(model, search=search, suite_folder=Path())
    adapters: dict[str, AdapterFile] = {}
    for option in (adapter_option(text) for text in options["adapters"]):
        if option.name in adapters:
            raise InputError(f'there are two adapters "{option.name}"', hint="give each --adapter a name of its own")
        adapters[option.name] = open_adapter(option.path, option.scale, search=search, suite_folder=Path())
    if adapters:
        # Each for itself: one file may have several names, for several scales.
        file = loaded_once(with_adapters(file, [adapter]) for adapter in adapters.values())
    names = ModelNames(
        tuple(dict.fromkeys((*options["names"], model))), {name: one.ref for name, one in adapters.items()}
    )
    rest = {name: value for name, value in options.items() if name != "adapters"}
    server = Server(file, models, ServeOptions(**{**rest, "names": names}))
    if not options["embeddings"] and (warning := beyond_training(file, server.context)):
        click.echo(f"gpurig-job: warning: {harmless(warning)}", err=True)
    return server


def _written(option: str) -> bool:
    """Whether the command line has an option; a variable that is set for a whole pipeline is not meant so."""
    return click.get_current_context().get_parameter_source(option) == ParameterSource.COMMANDLINE


def _environment(ours: Mapping[str, str], url: str, key: str) -> dict[str, str]:
    """The command's: ours, with the server, and no proxy before it."""
    found = {**ours, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": key}
    for name in ("NO_PROXY", "no_proxy"):
        found[name] = ",".join(part for part in (ours.get(name, ""), "127.0.0.1") if part)
    return found


@contextmanager
def _told_to_stop() -> Iterator[Callable[[], bool]]:
    """A function that says whether SIGTERM or SIGINT came; after it, the next one ends the process at once."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
