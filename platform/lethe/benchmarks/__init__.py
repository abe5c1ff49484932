"""Benchmarks: one folder each, behind the interface in `lethe.benchmarks.base`."""
