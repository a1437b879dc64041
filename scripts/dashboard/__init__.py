"""The Grafana dashboard: what its panels ask (gpurig.py), and how Grafana writes that down (rendering.py)."""
