"""Two runs of a suite, sample by sample."""
