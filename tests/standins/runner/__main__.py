"""gitlab-runner's command line, as far as its official image uses it."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path

from standins.runner.client import VERSION
from standins.runner.config import ConfigError
from standins.runner.service import Service


def main() -> int:
    """`run` until a signal, or `--version`; 1 for a config.toml that is refused."""
    parser = argparse.ArgumentParser(prog="gitlab-runner")
    parser.add_argument("--version", action="version", version=f"Version: {VERSION}\nstand-in of gpurig's tests")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--config", "-c", type=Path, default=Path("/etc/gitlab-runner/config.toml"))
    run.add_argument("--user", "-u")
    run.add_argument("--working-directory", "-d")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        service = Service(arguments.config)
    except ConfigError as error:
        logging.getLogger("runner").critical("%s", error)
        return 1
    for number in (signal.SIGQUIT, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, service.stop)
    service.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
