"""Logs and metrics: what the outside sees."""
