"""Suites out of other tools' files: promptfoo's configuration, samples of OpenAI evals."""
