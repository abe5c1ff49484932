"""Unlearning benchmarks: one folder each, behind the interface in `base`."""
