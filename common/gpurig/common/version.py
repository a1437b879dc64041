"""The version, read by hatchling at build time and by `--version` at run time."""

__version__ = "0.1.0"
