"""Facts about the host, and making it a runner."""
