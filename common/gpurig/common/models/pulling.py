"""`pull`: bring a model into a folder, verified and pinned."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from gpurig.common.errors import InputError
from gpurig.common.files import sha256_file
from gpurig.common.gguf import read_gguf
from gpurig.common.gguf_file_types import trained_context
from gpurig.common.models.licenses import Purpose, check_license
from gpurig.common.models.names import check_name, find_in, local_files, model_name
from gpurig.common.models.origin import Origin, PinnedFile, origin_path, read_origin, write_origin
from gpurig.common.models.remote import LocalFile
from gpurig.common.models.sources import Model, Part
from gpurig.common.models.transfer import Received, Tools, Wanted, receive
from gpurig.common.retrying import retrying


@dataclass(frozen=True)
class PullOptions:
    """What the user wants of a pull.

    Attributes:
        name: what the model is called here; None for its own name.
        sha256: what its one file must hash to; None where the user does not say.
        repin: take other bytes than an earlier pull pinned.
        allowed_licenses: names that the user accepts.
    """

    name: str | None = None
    sha256: str | None = None
    repin: bool = False
    allowed_licenses: tuple[str, ...] = ()
    purpose: Purpose = "eval"


@dataclass(frozen=True)
class Pulled:
    """A model that is in the folder.

    Attributes:
        fetched: bytes that were transferred now.
        first_use: nobody knew the hash beforehand: it is pinned from now on.
        notes: what the user should be told.
    """

    name: str
    files: tuple[Received, ...]
    origin: Origin
    first_use: bool
    notes: tuple[str, ...]

    @property
    def fetched(self) -> int:
        """Bytes that were transferred now."""
        return sum(file.fetched for file in self.files)


def pull(
    model: Model,
    folder: Path,
    options: PullOptions,
    tools: Tools,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Pulled:
    """Bring `model` into `folder`.

    Raises:
        InputError: its license is not accepted, its name is taken, it is no sound GGUF.
        PrerequisiteError: no room, no permission, offline.
        RemoteError: the source fails, or has other bytes than are wanted.
    """
    name = check_name(options.name or model.name)
    files = local_files(name, len(model.parts))
    if options.sha256 is not None:
        _check_sha256(options.sha256, name, len(files))
    earlier = _earlier(folder, name, files)
    license_ = model.license or (earlier.license if earlier and earlier.source == model.source else "")
    hub_file = model.hub_file
    if not license_ and hub_file is not None:
        license_ = retrying(hub_file.license, patience=tools.patience, clock=tools.clock, say=tools.say)
    notes: tuple[str, ...] = ()
    if license_ or hub_file is not None:
        notes = check_license(license_, model=name, purpose=options.purpose, allowed=options.allowed_licenses)
    parts = [replace(part, wanted=_wanted(part, options)) for part in model.parts]
    first_use = any(part.wanted.sha256 is None for part in parts) and (earlier is None or options.repin)
    received = tuple(
        _bring(part, folder / file, earlier, options, tools) for part, file in zip(parts, files, strict=True)
    )
    header = read_gguf(received[0].path)
    context = trained_context(header)
    if model.entry is not None and context is not None and context != model.entry.context:
        notes += (f"the file says it was made for {context} tokens, the catalogue says {model.entry.context}",)
    said = header.metadata.get("general.license")
    origin = Origin(
        source=model.source,
        revision=received[0].revision or model.revision,
        license=license_ or (said if isinstance(said, str) else ""),
        pulled=now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        files=tuple(PinnedFile(file.path.name, file.sha256, file.size_bytes) for file in received),
    )
    if earlier is not None and earlier.files == origin.files and not any(file.fetched for file in received):
        # Nothing came now: where the file is from has not changed, whatever was named this time.
        origin = earlier
    else:
        write_origin(folder, name, origin)
    return Pulled(name, received, origin, first_use, notes)


def _check_sha256(text: str, name: str, count: int) -> None:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise InputError(f'--sha256 "{text}" is no SHA-256', hint="64 hexadecimal digits, as sha256sum prints them")
    # Which of several files it would be of, nobody could tell.
    if count != 1:
        raise InputError(f"--sha256 is for one file, and {name} has {count}", hint="leave --sha256 out")


def _earlier(folder: Path, name: str, files: tuple[str, ...]) -> Origin | None:
    """The record of an earlier pull of this name; a file of another shape under that name is not replaced."""
    there = find_in(folder, name)
    if there and tuple(path.name for path in there) != files:
        raise InputError(
            f"{folder} has a model {name} in {len(there)} files, and the one to pull has {len(files)}",
            hint="choose another name with --as, or remove the files that are there",
        )
    return read_origin(folder, name)


def _wanted(part: Part, options: PullOptions) -> Wanted:
    return (
        part.wanted
        if options.sha256 is None
        else replace(part.wanted, sha256=options.sha256.lower(), because="you asked for")
    )


def _bring(part: Part, target: Path, earlier: Origin | None, options: PullOptions, tools: Tools) -> Received:
    pin = None if earlier is None or options.repin else earlier.pin(target.name)
    wanted = part.wanted
    if pin is not None:
        if wanted.sha256 not in {None, pin.sha256}:
            raise InputError(
                f"{target} was pulled from {earlier.source if earlier else ''} with sha256 {pin.sha256}, "
                f"and {wanted.because} {wanted.sha256}",
                hint="--repin takes the new bytes; --as NAME keeps both",
            )
        wanted = replace(
            wanted,
            sha256=pin.sha256,
            size_bytes=pin.size_bytes,
            because=f"an earlier pull ({origin_path(target.parent, model_name(target.name)).name}) pinned",
            hint="do not use it before you know why it changed; --repin takes the new bytes, --as NAME keeps both",
        )
    if not target.is_file() or options.repin:
        return receive(part.remote, target, wanted, tools)
    digest = sha256_file(target)
    there = Received(target, digest, target.stat().st_size, "", 0)
    if pin is None:
        # Nobody knows this file: it may stay only where it is the one that was asked for.
        if digest != (wanted.sha256 or _announced(part, tools)):
            raise InputError(
                f"{target} is there, no pull made it, and it is another file than {part.remote.label}",
                hint="--as NAME keeps both; --repin replaces it",
            )
        return there
    if digest == pin.sha256:
        return there
    tools.say(f"{target.name} is not what was pulled (sha256 {digest[:12]}...); fetching it again")
    return receive(part.remote, target, wanted, tools)


def _announced(part: Part, tools: Tools) -> str | None:
    if isinstance(part.remote, LocalFile):
        return sha256_file(part.remote.path)
    return retrying(part.remote.look, patience=tools.patience, clock=tools.clock, say=tools.say).sha256
