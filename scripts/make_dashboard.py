"""Write deploy/grafana/dashboards/gpurig.json: `python scripts/make_dashboard.py`; a test holds the file against it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "deploy/grafana/dashboards/gpurig.json"


def text() -> str:
    """The file's content."""
    from dashboard.gpurig import DASHBOARD  # noqa: PLC0415
    from dashboard.rendering import render  # noqa: PLC0415 - found through the path that main or a test adds

    return json.dumps(render(DASHBOARD), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write it."""
    sys.path.insert(0, str(Path(__file__).parent))
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(text(), encoding="utf-8")
    print(f"wrote {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
