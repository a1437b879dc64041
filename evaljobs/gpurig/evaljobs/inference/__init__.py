"""The inference engine: many requests at once through one llama.cpp context."""
