"""Who runs this process."""

from __future__ import annotations

import os
import pwd


def user_name() -> str:
    """The user's name; the number where it has none, as in some containers."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
