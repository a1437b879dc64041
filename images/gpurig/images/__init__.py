"""What to build, and building it."""
