"""The exporter: what the GPUs of this box do, for Prometheus."""
