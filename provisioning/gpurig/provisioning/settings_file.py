"""A box's settings as a TOML file: the keys are the settings' names; docs/set-up.md lists them."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gpurig.common.errors import InputError
from gpurig.common.files import read_text
from gpurig.provisioning.settings import Settings, reason_of

# What stands in the file for `runner_type` and `target`.
_WHOSE = ("project", "group", "instance")
KEYS = tuple(sorted({*Settings.model_fields, *_WHOSE, "token_file"} - {"runner_type", "target"}))
_FILES = ("tls_ca_file", "build_ca_bundle", "metrics_web_config", "runner_binary", "token_file")
# What people write instead, by the options' names.
_MEANT = {"tag": "extra_tags", "tags": "extra_tags", "allow_image": "allowed_images", "gitlab": "url"}


@dataclass(frozen=True)
class SettingsFile:
    """What a settings file says.

    Attributes:
        values: by the settings' field names; paths are absolute.
        token_file: the file that holds the user's token; None where it names none.
    """

    values: Mapping[str, Any]
    token_file: str | None


def read_settings_file(path: Path) -> SettingsFile:
    """Read and judge the file; paths in it are relative to its folder.

    Raises:
        InputError: no such file, no TOML, an unknown key, a wrong type or value; the message names file, line and key,
        never the value. PrerequisiteError: no permission.
    """
    text = read_text(path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            # tomllib quotes no more than one character of the file.
            f"{path} is no TOML: {error}",
            hint='one key = value a line, texts in quotes: name = "lab"',
        ) from error
    for key in values:
        if key not in KEYS:
            raise _unknown(path, text, key)
    values = _resolved(path.absolute().parent, values)
    token_file = values.pop("token_file", None)
    if token_file is not None and not isinstance(token_file, str):
        raise InputError(f"{_at(path, text, 'token_file')}: a path in quotes", hint='token_file = "token"')
    whose = {key: values.pop(key) for key in _WHOSE if key in values}
    values |= _whose(path, text, whose)
    _check(path, text, values)
    return SettingsFile(values, token_file)


def _at(path: Path, text: str, key: str) -> str:
    found = re.search(rf"""^[ \t]*\[{{0,2}}[ \t]*["']?{re.escape(key)}["']?[ \t]*[=.\]]""", text, re.MULTILINE)
    return f"{path}, line {text.count(chr(10), 0, found.start()) + 1}, {key}" if found else f"{path}, {key}"


def _unknown(path: Path, text: str, key: str) -> InputError:
    if key in {"token", "private_token", "gitlab_token"}:
        return InputError(
            f"{_at(path, text, key)}: a token does not belong into a settings file",
            hint='put it into a file of its own, mode 0600, and name that: token_file = "token"',
        )
    near = [_MEANT[key]] if key in _MEANT else difflib.get_close_matches(key.replace("-", "_"), KEYS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(KEYS)}"
    return InputError(f"{_at(path, text, key)}: unknown key", hint=hint)


def _resolved(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    found = {key: str(folder / values[key]) for key in _FILES if isinstance(values.get(key), str) and values[key]}
    return {**values, **found}


def _whose(path: Path, text: str, whose: dict[str, Any]) -> dict[str, Any]:
    if len(whose) > 1:
        raise InputError(
            f"{_at(path, text, list(whose)[1])}: project, group and instance exclude each other",
            hint="keep one of them",
        )
    for kind, target in whose.items():
        if kind == "instance":
            if target is not True:
                raise InputError(f"{_at(path, text, kind)}: it is true or absent", hint="instance = true")
            return {"runner_type": kind, "target": ""}
        if isinstance(target, bool) or not isinstance(target, str | int):
            raise InputError(f"{_at(path, text, kind)}: a number or a path in quotes", hint=f"{kind} = 42")
        return {"runner_type": kind, "target": str(target)}
    return {}


def _check(path: Path, text: str, values: Mapping[str, Any]) -> None:
    """Types as they are in the file: "2" is no number. What may still come from options is not missed."""
    try:
        # As JSON, because pydantic's strict mode takes its lists for tuples and its texts for paths.
        # A TOML date is none of their types.
        Settings.model_validate_json(
            json.dumps({"url": "https://later.invalid", **values}, default=lambda _: {}), strict=True
        )
    except ValidationError as error:
        field, reason = reason_of(error)
        raise InputError(
            f"{_at(path, text, field)}: {reason}", hint="docs/set-up.md lists the keys and types"
        ) from error
