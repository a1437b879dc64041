"""Suites: their format, reading them, and from a sample to a prompt."""
