"""Benchmark data and models that the platform generates itself, from a seed."""
