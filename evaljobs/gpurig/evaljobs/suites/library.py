"""The prompt library: prompt files with a version and a hash, which may take in other files of their folder.

A prompt file is a Jinja2 template. Where it has something to tell of itself, YAML between two lines `---` stands first.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from gpurig.common.errors import InputError
from gpurig.common.files import read_text
from gpurig.evaljobs.records import PromptRef
from gpurig.evaljobs.suites.source import YamlProblemError, compose_core
from gpurig.evaljobs.suites.template import GRADER_NAMES, TemplateFault

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = "prompts"
_ENDINGS = (".md", ".txt", ".j2", ".jinja")
_MAX_CHARACTERS = 1024 * 1024
_FENCE = "---"


class PromptText(str):
    """A template's text, which knows where it comes from.

    Attributes:
        ref: which prompt of the library; None for one that the suite itself writes.
        variables: what it may name beside the usual; every sample must have them.
    """

    __slots__ = ("ref", "variables")

    ref: PromptRef | None
    variables: tuple[str, ...]

    def __new__(cls, text: str, *, ref: PromptRef | None = None, variables: tuple[str, ...] = ()) -> Self:
        """A text with what is known of it."""
        made = super().__new__(cls, text)
        made.ref = ref
        made.variables = variables
        return made


def prompt_ref(prompt: str | None) -> PromptRef | None:
    """Which prompt of the library a suite's prompt is."""
    return prompt.ref if isinstance(prompt, PromptText) else None


def prompt_variables(prompt: str | None) -> tuple[str, ...]:
    """The variables that a suite's prompt declares."""
    return prompt.variables if isinstance(prompt, PromptText) else ()


def _version(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _names(value: object) -> object:
    return list(value) if isinstance(value, dict) else value


def _free(name: str) -> str:
    if name in GRADER_NAMES:
        raise ValueError(f'"{name}" has a meaning of its own in templates')
    return name


_Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"), AfterValidator(_free)]


class FrontMatter(BaseModel):
    """What a prompt file tells of itself.

    Attributes:
        variables: names, or names with what they mean.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Annotated[str, BeforeValidator(_version)] = ""
    description: str = ""
    variables: Annotated[list[_Variable], BeforeValidator(_names)] = Field(default_factory=list)


@dataclass(frozen=True)
class Library:
    """The prompts that a suite may name.

    Attributes:
        folder: the suite's.
        named: the suite's own `prompts`, as it writes them.
    """

    folder: Path
    named: Mapping[str, Any] = field(default_factory=dict)

    def prompt(self, wanted: Mapping[str, Any]) -> PromptText:
        """The prompt that a suite's `{file: …}` or `{name: …}` means.

        Raises:
            TemplateFault: there is none, or it cannot be used; file and line are in the text.
        """
        (key,) = wanted if len(wanted) == 1 else ("",)
        value = wanted.get(key)
        if key not in {"file", "name"} or not isinstance(value, str) or not value:
            raise TemplateFault("must be the template's text, {file: …} or {name: …}")
        if key == "file":
            return self._read(self._inside(self.folder / value, self.folder, value), Path(value).stem)
        own = self.named.get(value)
        if isinstance(own, str):
            return PromptText(own, ref=PromptRef(name=value, sha256=_sha256(own)))
        if isinstance(own, dict) and isinstance(own.get("file"), str):
            return self._read(self._inside(self.folder / own["file"], self.folder, own["file"]), value)
        return self._read(self._by_name(value), value)

    def _by_name(self, name: str) -> Path:
        root = self.folder / FOLDER
        found = [path for ending in _ENDINGS if (path := root / f"{name}{ending}").is_file()]
        if len(found) > 1:
            raise TemplateFault(f'two files are the prompt "{name}": {found[0].name} and {found[1].name}')
        if not found:
            there = (path.relative_to(root).with_suffix("") for path in root.rglob("*") if path.suffix in _ENDINGS)
            known = ", ".join(sorted({*self.named, *(path.as_posix() for path in there)})) or "none"
            raise TemplateFault(f'there is no prompt "{name}" under `prompts` or in {FOLDER}/ (known: {known})')
        return self._inside(found[0], root, name)

    def _inside(self, path: Path, root: Path, written: str) -> Path:
        """The file itself, links followed, where it lies below `root`."""
        file = path.resolve()
        if not file.is_relative_to(root.resolve()):
            raise TemplateFault(f"{written} lies outside of {root.name or root}/")
        if not file.is_file():
            raise TemplateFault(f"there is no file {path}")
        return file

    def _read(self, file: Path, name: str) -> PromptText:
        library = (self.folder / FOLDER).resolve()
        root = library if file.is_relative_to(library) else file.parent
        reading = _Reading(root, self.folder.resolve())
        text = "".join(reading.expanded(file, ()))
        matter = reading.matters[file]
        variables = tuple(dict.fromkeys(name for one in reading.matters.values() for name in one.variables))
        return PromptText(
            text, ref=PromptRef(name=name, version=matter.version, sha256=_sha256(text)), variables=variables
        )


@dataclass
class _Reading:
    """One prompt being put together out of its files.

    Attributes:
        root: no file outside of it is taken in.
        base: what paths in messages are relative to.
        matters: of the files read so far.
    """

    root: Path
    base: Path
    matters: dict[Path, FrontMatter] = field(default_factory=dict)
    size: int = 0

    def expanded(self, file: Path, chain: tuple[Path, ...]) -> Iterator[str]:
        """The parts of a file's text, those that it includes in their places."""
        if file in chain:
            links = " → ".join(self._shown(one) for one in (*chain[chain.index(file) :], file))
            raise TemplateFault(f"prompts include each other in a circle: {links}")
        self.matters[file], text, begins = self._split(file)
        for part, line in self._parts(file, text, begins):
            if line == 0:
                self.size += len(part)
                if self.size > _MAX_CHARACTERS:
                    raise TemplateFault(f"{self._shown(file)}: over {_MAX_CHARACTERS:,} characters, its includes in it")
                yield part
                continue
            included = (file.parent / part).resolve()
            where = f"{self._shown(file)}:{line}: "
            if not included.is_relative_to(self.root):
                raise TemplateFault(f"{where}{part} lies outside of {self._shown(self.root)}/")
            if not included.is_file():
                raise TemplateFault(f"{where}there is no file {part}")
            yield from self.expanded(included, (*chain, file))

    def _split(self, file: Path) -> tuple[FrontMatter, str, int]:
        """What a file tells of itself, its template, and how many lines are before that."""
        try:
            if file.stat().st_size > _MAX_CHARACTERS:
                raise TemplateFault(f"{self._shown(file)} is larger than {_MAX_CHARACTERS:,} bytes")
            text = read_text(file).removeprefix("\ufeff").replace("\r\n", "\n")
        except InputError as error:
            raise TemplateFault(error.message) from error
        lines = text.split("\n")
        if lines[0].rstrip() != _FENCE:
            return FrontMatter(), text.removesuffix("\n"), 0
        end = next((number for number, line in enumerate(lines) if number and line.rstrip() == _FENCE), None)
        if end is None:
            raise TemplateFault(f"{self._shown(file)}:1: what begins with {_FENCE} must end with a line {_FENCE}")
        matter = self._matter(file, "\n".join(lines[1:end]))
        return matter, "\n".join(lines[end + 1 :]).removesuffix("\n"), end + 1

    def _matter(self, file: Path, text: str) -> FrontMatter:
        where: dict[tuple[str | int, ...], int] = {}
        try:
            data = compose_core(text, lines=where, plain=True)
        except YamlProblemError as error:
            raise TemplateFault(f"{self._shown(file)}:{error.line + 1}: {error.reason}") from error
        try:
            return FrontMatter.model_validate({} if data is None else data, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"][:1])
            line = where.get(first["loc"][:1], 1) + 1
            told = {
                "extra_forbidden": f"unknown key (known: {', '.join(FrontMatter.model_fields)})",
                "string_type": "must be text: put it in quotes",
                "list_type": "must be a list of names",
                "model_type": "must be a mapping",
                "string_pattern_mismatch": "must be letters, digits and _ only",
            }.get(first["type"], first["msg"].removeprefix("Value error, "))
            raise TemplateFault(f"{self._shown(file)}:{line}: {name}{': ' if name else ''}{told}") from error

    def _parts(self, file: Path, text: str, begins: int) -> Iterator[tuple[str, int]]:
        """The template's parts: text with 0, and the files to include with the line that names them."""
        from jinja2 import TemplateSyntaxError  # noqa: PLC0415 - heavy

        try:
            _lexing().parse(text)
            tokens = list(_lexing().lex(text))
        except TemplateSyntaxError as error:
            raise TemplateFault(f"{self._shown(file)}:{error.lineno + begins}: {error.message}") from error
        position = 0
        while position < len(tokens):
            line, kind, value = tokens[position]
            if kind == "block_begin":
                end = next(at for at in range(position, len(tokens)) if tokens[at][1] == "block_end")
                words = [(one, word) for _, one, word in tokens[position + 1 : end] if one != "whitespace"]
                if words and words[0] == ("name", "include"):
                    if len(words) != 2 or words[1][0] != "string":
                        told = 'only the form {% include "FILE" %} is taken'
                        raise TemplateFault(f"{self._shown(file)}:{line + begins}: {told}")
                    yield words[1][1][1:-1], line + begins
                    position = end + 1
                    continue
            yield value, 0
            position += 1

    def _shown(self, path: Path) -> str:
        return path.relative_to(self.base).as_posix()


@functools.cache
def _lexing() -> Environment:
    """Finds tags and changes no white space; whatever is left is rendered by template.py's sandbox."""
    from jinja2 import Environment  # noqa: PLC0415 - heavy
    from jinja2.ext import loopcontrols  # noqa: PLC0415

    return Environment(keep_trailing_newline=True, extensions=[loopcontrols], autoescape=False)  # noqa: S701 - no HTML


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
