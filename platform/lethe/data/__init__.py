"""Benchmarks: rows, the embedded corpus, templates and batches."""
