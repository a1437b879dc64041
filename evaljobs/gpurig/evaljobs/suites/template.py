"""Prompt templates: Jinja2 in a sandbox, because templates come with suites and models that others wrote."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gpurig.common.errors import InputError

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment

# What a prompt template may name, beside a sample's own `vars`.
GENERATOR_NAMES = ("id", "input", "tags", "vars")
GRADER_NAMES = ("id", "input", "output", "reference", "tags", "vars")


class TemplateFault(ValueError):  # noqa: N818 - a finding about a text, raised as a ValueError for pydantic
    """A template that cannot be used; its text is one line that says why."""


@functools.cache
def _environment(*, strict: bool = True) -> ImmutableSandboxedEnvironment:
    from jinja2 import StrictUndefined, Undefined  # noqa: PLC0415 - heavy, and `--help` does not need it
    from jinja2.ext import loopcontrols  # noqa: PLC0415
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

    # Trimmed like the chat templates inside GGUF files expect (transformers' apply_chat_template does the same).
    # Nothing is escaped: a prompt is plain text, not HTML.
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined if strict else Undefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[loopcontrols],
    )
    environment.globals["raise_exception"] = _raise
    # Jinja2's own escapes for HTML; chat templates write tools with transformers' form.
    environment.filters["tojson"] = _to_json
    return environment


def _to_json(value: Any, indent: int | None = None) -> str:
    import json  # noqa: PLC0415 - few templates need it

    return json.dumps(value, ensure_ascii=False, indent=indent)


@functools.lru_cache(maxsize=8)
def _compiled(text: str, *, strict: bool) -> Template:
    return _environment(strict=strict).from_string(text)


def _raise(message: object) -> None:
    raise TemplateFault(str(message))


def check_syntax(text: str) -> None:
    """Refuse a template that does not parse.

    Raises:
        TemplateFault: what is wrong, with the template's line.
    """
    from jinja2 import TemplateSyntaxError  # noqa: PLC0415

    try:
        _environment().from_string(text)
    except TemplateSyntaxError as error:
        raise TemplateFault(f"line {error.lineno} of the template: {error.message}") from error


def template_names(text: str) -> set[str]:
    """The variables that a template names and does not set itself.

    Raises:
        TemplateFault: it does not parse.
    """
    from jinja2 import meta  # noqa: PLC0415

    check_syntax(text)
    return meta.find_undeclared_variables(_environment().parse(text)) - set(_environment().globals)


def check_template(text: str, known: tuple[str, ...]) -> None:
    """Refuse a template that does not parse, or that names a variable which nobody sets.

    Raises:
        TemplateFault: what is wrong, with the template's line where Jinja2 says one.
    """
    import difflib  # noqa: PLC0415

    from jinja2 import meta  # noqa: PLC0415

    check_syntax(text)
    parsed = _environment().parse(text)
    if any(True for _ in meta.find_referenced_templates(parsed)):
        raise TemplateFault("include works in prompt files alone (docs/prompts.md), extends and import nowhere")
    names = meta.find_undeclared_variables(parsed)
    unknown = sorted(names - set(known) - set(_environment().globals))
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        meant = f'; did you mean "{near[0]}"?' if near else ""
        raise TemplateFault(f'the template names "{unknown[0]}"{meant} (known: {", ".join(known)})')


def render(text: str, values: Mapping[str, Any], *, what: str, strict: bool = True) -> str:
    """The text of a template.

    Args:
        text: the template.
        values: its variables.
        what: whose template, for the message.
        strict: a variable that is not there is an error; chat templates ask for absent ones (`if tools`).

    Raises:
        InputError: it asks for something that is not there, or something the sandbox forbids.
    """
    from jinja2 import TemplateError  # noqa: PLC0415

    try:
        return _compiled(text, strict=strict).render(**values)
    except (TemplateError, TemplateFault, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise InputError(f"{what}: {error}", hint="correct the template, or give the sample what it asks for") from None
