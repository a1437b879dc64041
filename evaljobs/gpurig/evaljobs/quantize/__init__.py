"""Quantizing models, and measuring what it costs: importance matrices, llama.cpp's quantizations, divergences."""
