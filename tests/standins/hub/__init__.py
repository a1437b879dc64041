"""A hub for the tests: the calls that a download makes, as huggingface.co answers them. See ../README.md."""

from standins.hub.server import Hub, HubRepository

__all__ = ["Hub", "HubRepository"]
