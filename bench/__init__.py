"""Benchmarks: what is compared is measured in one run, and ratios count, not figures."""
