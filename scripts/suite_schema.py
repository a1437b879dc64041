"""Write docs/suite.schema.json from the models that read suites (`make docs`); a test holds them together."""

from __future__ import annotations

from pathlib import Path

from gpurig.evaljobs.suites.schema import schema_text
from rewriting import write_if_changed

DOCUMENT = Path(__file__).parents[1] / "docs" / "suite.schema.json"


def main() -> None:
    """Write it where it differs."""
    write_if_changed(DOCUMENT, schema_text())


if __name__ == "__main__":
    main()
