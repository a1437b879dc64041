"""Write docs/suite.schema.json from the models that read suites (`make docs`); a test holds them together."""

from __future__ import annotations

from pathlib import Path

from gpurig.evaljobs.suites.schema import schema_text

DOCUMENT = Path(__file__).parents[1] / "docs" / "suite.schema.json"


def main() -> None:
    """Write it where it differs."""
    new = schema_text()
    if not DOCUMENT.exists() or DOCUMENT.read_text(encoding="utf-8") != new:
        DOCUMENT.write_text(new, encoding="utf-8")
        print(f"wrote {DOCUMENT.name}")


if __name__ == "__main__":
    main()
