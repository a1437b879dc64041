"""Answering over HTTP: TLS, users, paths."""
