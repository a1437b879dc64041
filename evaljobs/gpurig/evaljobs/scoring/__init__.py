"""Scoring what others wrote: choices of questions, and whole texts."""
