"""Which CI job used a GPU, and how much."""
