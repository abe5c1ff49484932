"""Spaces, searcher and Pareto tools: numpy and optuna; Ray only in the adapter."""
