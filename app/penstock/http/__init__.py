"""The HTTP listener: probes, metrics, status and control."""
