"""Names that a pipeline is made of, put together at random, so that a model must copy instead of remember."""

from __future__ import annotations

import functools
import random
from pathlib import Path

_CLUSTERS = ("bl", "br", "ch", "cl", "dr", "fl", "fr", "gl", "gr", "kl", "pl", "pr", "qu", "sk", "st", "tr")
_STARTS = (*"bcdfghjklmnprstvwz", *_CLUSTERS)
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "io", "ou")
_ENDS = ("", "", "n", "r", "l", "x", "m", "th", "rd", "st", "ck", "ng", "p")

# YAML reads these as something else than text, or GitLab as something else than a job.
_RESERVED = frozenset(
    {
        "on",
        "no",
        "off",
        "yes",
        "true",
        "false",
        "null",
        "nan",
        "inf",
        "image",
        "services",
        "stages",
        "cache",
        "include",
        "pages",
    }
    | {"default", "workflow", "variables", "before_script", "after_script", "spec", "types"}
)


@functools.cache
def known() -> tuple[str, ...]:
    """The list of words.txt."""
    return tuple(Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split())


def word(rng: random.Random) -> str:
    """Lower-case letters, seldom with a digit: a word of the list, invented, or no word at all."""
    while True:
        made = rng.choice((_listed,) * 6 + (_invented,) * 3 + (_letters,))(rng)
        if rng.random() < 0.08:
            made += str(rng.randrange(10))
        if len(made) > 1 and made not in _RESERVED:
            return made


def _listed(rng: random.Random) -> str:
    return rng.choice(known())


def _invented(rng: random.Random) -> str:
    syllables = (rng.choice(_STARTS) + rng.choice(_VOWELS) for _ in range(rng.choice((1, 2, 2, 3))))
    return "".join(syllables) + rng.choice(_ENDS)


def _letters(rng: random.Random) -> str:
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randrange(2, 8)))


def job_name(rng: random.Random) -> str:
    """A name that both systems take for a job."""
    parts = rng.choice((1, 1, 2, 2, 2, 3))
    return rng.choice(("-", "-", "-", "_")).join(word(rng) for _ in range(parts))


def variable(rng: random.Random) -> str:
    """A variable's name."""
    return "_".join(word(rng) for _ in range(rng.choice((1, 2, 2, 3)))).upper()


def value(rng: random.Random) -> str:
    """A variable's value."""
    return rng.choice((word(rng), word(rng), str(rng.randrange(100)), f"{word(rng)}-{word(rng)}"))


def tag(rng: random.Random) -> str:
    """A runner's tag."""
    return rng.choice(
        (word(rng), word(rng), f"{word(rng)}-{word(rng)}", f"{word(rng)}-{rng.randrange(100)}{_letters(rng)}")
    )


def version(rng: random.Random) -> str:
    """An image's tag, such as 3.12, 22-slim or bookworm."""
    if rng.random() < 0.15:
        return rng.choice(("latest", word(rng)))
    numbers = ".".join(
        str(rng.choice((rng.randrange(10), rng.randrange(100)))) for _ in range(rng.choice((1, 2, 2, 3)))
    )
    suffix = rng.choice(("", "", "", "slim", "alpine", "bookworm", word(rng)))
    return f"{numbers}-{suffix}" if suffix else numbers


def image(rng: random.Random) -> str:
    """A container image with its tag."""
    known = ("python", "node", "golang", "rust", "ruby", "php", "alpine", "debian", "maven", "gradle", "ubuntu")
    parts = rng.choice((0, 0, 1, 2, 2, 3))
    if not parts:
        return f"{rng.choice(known)}:{version(rng)}"
    names = [_dashed(rng) for _ in range(parts)]
    if parts == 3 or rng.random() < 0.2:
        names[0] = f"{rng.choice(('registry', 'docker', word(rng)))}.{word(rng)}.{rng.choice(('com', 'org', 'io'))}"
        names += [] if len(names) > 1 else [_dashed(rng)]
    return f"{'/'.join(names)}:{version(rng)}"


def service(rng: random.Random) -> str:
    """A service's image."""
    known = ("postgres", "redis", "mysql", "mongo", "rabbitmq", "memcached", "elasticsearch", "nginx")
    name = rng.choice((rng.choice(known), word(rng), f"{word(rng)}/{word(rng)}"))
    return f"{name}:{version(rng)}"


def path(rng: random.Random) -> str:
    """A path in the repository."""
    parts = [_dashed(rng) for _ in range(rng.choice((1, 1, 2, 2, 3)))]
    kind = rng.choice(("/", "/", "/", "", ".xml", ".json", ".html", ".log", ".tar.gz", f".{word(rng)}"))
    return f"{rng.choice(('', '', '.'))}{'/'.join(parts)}{kind}"


def command(rng: random.Random) -> str:
    """A shell command, plain enough to be a YAML scalar without quotes."""
    return _usual_command(rng) if rng.random() < 0.3 else _free_command(rng)


def _dashed(rng: random.Random) -> str:
    return rng.choice((word(rng), word(rng), word(rng), f"{word(rng)}-{word(rng)}", f"{word(rng)}_{word(rng)}"))


def _free_command(rng: random.Random) -> str:
    program = rng.choice((_dashed(rng), _dashed(rng), f"./{path(rng)}", f"python -m {word(rng)}", f"npx {word(rng)}"))
    return " ".join([program, *(_argument(rng) for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4))))])


def _argument(rng: random.Random) -> str:
    one, number = word(rng), rng.randrange(100)
    letter = rng.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return rng.choice(
        (
            one,
            one,
            path(rng),
            f"--{one}",
            f"--{one}",
            f"--{one} {word(rng)}",
            f"--{one}-{word(rng)}",
            f"--{one}={word(rng)}",
            f"-{one}={word(rng)}",
            f"--{one} {number}",
            f"-{letter}",
            f"-{letter} {one}",
            f"-{letter}{number}",
            f"-{letter} {one.upper()}",
            f"{one}={number}",
            str(number),
            ".",
            "./...",
            f"./{one}/...",
            f".[{one}]",
            f"{one}.{word(rng)}",
            f"https://{one}.{word(rng)}.com/{word(rng)}",
        )
    )


def _usual_command(rng: random.Random) -> str:
    one, two, number = word(rng), word(rng), rng.randrange(2, 65)
    return rng.choice(
        (
            f"make {one}",
            f"make -j{number} {one}",
            f"npm run {one}",
            "npm ci",
            f"npm test --workspace {one}",
            f"pytest tests/{one}",
            f"pytest -q {one}/{two}",
            f"python {one}.py --{two} {number}",
            f"python -m {one}.{two}",
            f"pip install {one}",
            "pip install -r requirements.txt",
            f"pip install -e .[{one}]",
            f"ruff check {one}",
            f"tox -e {one}",
            f"go test ./{one}/...",
            f"go build -o {one} ./cmd/{two}",
            "cargo build --release",
            f"cargo test --package {one}",
            f"bundle exec rake {one}",
            f"./{one}.sh",
            f"./{one}.sh --{two}",
            f"bash scripts/{one}.sh {two}",
            f"mvn -B {one}",
            f"cmake --build {one} --target {two}",
            f"ctest --test-dir {one}",
            f"helm lint charts/{one}",
            f"terraform {one} -var {two}={number}",
            f"rsync -a {one}/ {two}/",
            f"curl -fsS https://{one}.example.com/{two}",
            f"{one} {two} --jobs {number}",
            f"{one} --{two}",
        )
    )
