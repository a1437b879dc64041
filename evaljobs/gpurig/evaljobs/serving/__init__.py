"""The inference engine behind an OpenAI-compatible interface."""
