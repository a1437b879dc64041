"""Judging answers with a model, and judging the judge."""
