"""The GPUs: which there are, and what they tell."""
