"""Evaluation: shared forward passes over many rows, and metrics in plain numpy over what they give."""
