"""Write the tables of docs/checks.md from the catalogue of checks (`make docs`); a test holds them together."""

from __future__ import annotations

from pathlib import Path

from gpurig.evaljobs.checks import CHECKS, Check

DOCUMENT = Path(__file__).parents[1] / "docs" / "checks.md"

# These every check has, and the document says so once.
COMMON = ("weight", "extract")


def row(check: Check) -> str:
    """One check: its name, its own parameters (the one that `name: value` sets in bold), and where it passes."""
    own = [name for name in check.parameter_names if name not in COMMON]
    named = ", ".join(f"**`{name}`**" if name == check.shorthand else f"`{name}`" for name in own)
    return f"| `{check.name}` | {named} | {check.passes} |\n".replace("|  |", "| |")


def table(group: str) -> str:
    """The checks of a group."""
    rows = "".join(row(check) for check in CHECKS.values() if check.group == group)
    return f"| check | parameters | passes where |\n| --- | --- | --- |\n{rows}"


def with_tables(text: str) -> str:
    """The document with its tables as they should be.

    Raises:
        ValueError: the document has lost the marks between which they stand.
    """
    for group in dict.fromkeys(check.group for check in CHECKS.values()):
        begin, end = f"<!-- {group}: begin (make docs writes this table) -->\n", f"<!-- {group}: end -->\n"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"{DOCUMENT.name} lacks the marks of the table {group}")
        text = f"{head}{begin}{table(group)}{end}{tail}"
    return text


def main() -> None:
    """Write them where they differ."""
    old = DOCUMENT.read_text(encoding="utf-8")
    new = with_tables(old)
    if old != new:
        DOCUMENT.write_text(new, encoding="utf-8")
        print(f"wrote the tables of {DOCUMENT.name}")


if __name__ == "__main__":
    main()
